"""Without the [models] extra all that needs no model works, and the rest names the extra."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapter_files import lora_tensors, write_lora
from tests.catalog_files import write_wheel
from tests.command_line import CommandLine

# Python runs sitecustomize before anything else, and asks what is first on the meta path first.
ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "numpy", "bitsandbytes"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
ROWS = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def bare(adapterhub: CommandLine, tmp_path: Path) -> CommandLine:
    """A machine without torch, with two adapters here, and a base with its name alone."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(ABSENT)
    write_lora(tmp_path / "adapter")
    write_lora(tmp_path / "other", tensors=lora_tensors(3), r=3)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return adapterhub.having(PYTHONPATH=str(site))


def test_everything_but_models_works(bare: CommandLine) -> None:
    bare.ok("push", "adapter", "acme/tiny-lora")
    bare.ok("pull", "acme/tiny-lora")
    for words in (
        "list",
        "search",
        "show acme/tiny-lora",
        "tree acme/tiny-lora",
        "base list",
        "methods",
        "plugins",
        "doctor",
    ):
        bare.ok(*words.split())
    assert "none of what needs a model works" in bare.ok("doctor").out
    for target in ("vllm", "llama.cpp", "mlx", "peft"):
        bare.ok("lint", "acme/tiny-lora", "--target", target)
    assert "unchecked" in bare.ok("verify", "acme/tiny-lora").out
    bare.ok("rm", "-y", "acme/tiny-lora")


def test_rows_are_made_of_translations(bare: CommandLine, tmp_path: Path) -> None:
    write_wheel(tmp_path / "greeter.whl")
    bare.ok("gettext", "./greeter.whl", "--to", "ko", "-o", "en2ko")


def test_a_project_is_locked_and_brought_here(bare: CommandLine) -> None:
    bare.ok("push", "adapter", "acme/tiny-lora")
    bare.ok("add", "acme/tiny-lora")
    bare.ok("lock")
    bare.ok("sync", "--frozen", "--offline")


def test_diff_compares_what_needs_no_model_and_says_what_does(bare: CommandLine) -> None:
    done = bare.ok("diff", "./adapter", "./other")
    assert "not compared: that needs packages" in done.out
    assert 'pip install "adapterhub[models]"' in done.out
    found = bare.ok("diff", "./adapter", "./other", "--json").json
    assert [item["key"] for item in found["config"]] == ["r"]
    assert found["tensors"] is None


@pytest.mark.parametrize(
    "words",
    [
        "stack ./adapter ./other -o merged",
        "stack ./adapter ./other --dry-run",
        "compat ./adapter ./other",
        "push ./adapter+./other acme/both",
        "base add tiny ./adapter",
    ],
)
def test_what_needs_models_names_the_extra(bare: CommandLine, words: str) -> None:
    done = bare(*words.split())
    assert done.code == 8
    assert done.complaint[-1] == 'pip install "adapterhub[models]"'
    assert len(done.complaint) == 2


@pytest.mark.parametrize(
    "words",
    [
        "run ./adapter hello --base tiny",
        "eval ./adapter --task ./rows.jsonl --base tiny",
        "train --base tiny --data ./rows.jsonl -o new",
    ],
)
def test_what_needs_a_base_names_the_extra_too(
    bare: CommandLine, named_base: str, words: str
) -> None:
    assert named_base == "tiny"
    done = bare(*words.split())
    assert (done.code, done.out) == (8, "")
    assert done.complaint[-1] == 'pip install "adapterhub[models]"'
    assert not (bare.cwd or Path()).joinpath("new").exists()
