"""`plugins new` writes what `plugins check` passes; a broken promise is found and named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapterhub.plugin.scaffold import KINDS
from tests.command_line import CommandLine
from tests.plugin_folders import write_plugin

pytestmark = pytest.mark.models

LEAKY = """
from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import Item, Message, TaskData
from adapterhub.plugin import Task, hookimpl

class Leaky:
    def train_rows(self, n, *, seed=0):
        return [{"prompt": str(i % 60), "completion": "x"} for i in range(n)]

    def held_out(self, n, *, seed=0):
        items = [Item(messages=(Message(role="user", content=str(i)),), answer="x")
                 for i in range(seed, seed + n)]
        return TaskData(name="leaky", items=tuple(items), digest=digest_of([seed, n]),
                        max_new_tokens=1)

@hookimpl
def adapterhub_tasks():
    return [Task(name="leaky", summary="asks what it trains on", target="adapterhub_leaky:Leaky")]
"""


def install(folder: Path, site: Path) -> None:
    """As pip does from a source, without network."""
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    words = [sys.executable, *pip, "--target", str(site), str(folder)]
    subprocess.run(words, check=True, capture_output=True, env=dict(os.environ))


def made(adapterhub: CommandLine, place: Path, name: str, kind: str) -> CommandLine:
    """The command line of a machine on which a new plugin was written and installed."""
    adapterhub.ok("plugins", "new", name, "--kind", kind, "-o", place / "source")
    install(place / "source", place / "site")
    return adapterhub.having(PYTHONPATH=str(place / "site"))


def test_new_says_what_it_wrote_and_what_to_do_next(
    adapterhub: CommandLine, tmp_path: Path
) -> None:
    done = adapterhub.ok("plugins", "new", "low_bias", "-o", tmp_path / "mine", "--json")
    assert done.json == {
        "folder": str(tmp_path / "mine"),
        "files": [
            "pyproject.toml",
            "README.md",
            "adapterhub_low_bias/__init__.py",
            "adapterhub_low_bias/method.py",
            "tests/test_low_bias.py",
        ],
    }
    assert 'name = "adapterhub-low-bias"' in (tmp_path / "mine" / "pyproject.toml").read_text()
    assert "class TestLowBias" in (tmp_path / "mine/tests/test_low_bias.py").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_is_clean(adapterhub: CommandLine, tmp_path: Path, kind: str) -> None:
    adapterhub.ok("plugins", "new", "a_plugin", "--kind", kind, "-o", tmp_path / "mine")
    settings = str(Path(__file__).parents[2] / "pyproject.toml")
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--config", settings, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Upper", "two-words", "1st", "_hidden", "class", "a" * 41, "ü"])
def test_a_name_that_no_module_can_have_is_refused(
    adapterhub: CommandLine, tmp_path: Path, name: str
) -> None:
    done = adapterhub("plugins", "new", name, "-o", tmp_path / "mine")
    assert done.code == 2
    assert len(done.complaint) == 2
    assert not (tmp_path / "mine").exists()


def test_a_name_that_is_taken_is_refused(adapterhub: CommandLine, tmp_path: Path) -> None:
    done = adapterhub("plugins", "new", "lora", "-o", tmp_path / "mine")
    assert done.code == 2
    assert "peft (adapterhub" in done.complaint[0]


@pytest.mark.parametrize("name", ["plugins", "train", "all", "peft", "bnb", "check"])
def test_a_name_that_means_something_already_is_refused(
    adapterhub: CommandLine, tmp_path: Path, name: str
) -> None:
    done = adapterhub("plugins", "new", name, "-o", tmp_path / "mine")
    assert done.code == 2
    assert len(done.complaint) == 2
    assert not (tmp_path / "mine").exists()


def test_a_name_whose_package_is_here_is_refused(adapterhub: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "site" / "adapterhub_mine").mkdir(parents=True)
    machine = adapterhub.having(PYTHONPATH=str(tmp_path / "site"))
    done = machine("plugins", "new", "mine", "-o", tmp_path / "mine")
    assert done.code == 2
    assert "there is a package adapterhub_mine" in done.complaint[0]


@pytest.mark.parametrize("place", ["bert-nf4", "llama-fp3", "llama", "-nf4"])
def test_a_base_that_is_no_tiny_one_is_refused_and_the_known_ones_named(
    adapterhub: CommandLine, place: str
) -> None:
    done = adapterhub("plugins", "check", "lora", "--on", place)
    assert done.code == 2
    assert "llama, phi3, qwen2, mistral, gpt2 and nf4, int8, bf16" in done.complaint[1]


def test_a_folder_that_exists_is_left_alone(adapterhub: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    done = adapterhub("plugins", "new", "bitfit", "-o", tmp_path)
    assert done.code == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept"]


@pytest.mark.parametrize("kind", ["strategy", "task"])
def test_a_new_plugin_keeps_its_promises_at_once(
    adapterhub: CommandLine, tmp_path: Path, kind: str
) -> None:
    done = made(adapterhub, tmp_path, "fresh", kind).ok("plugins", "check", "fresh", "--json")
    assert {line["outcome"] for line in done.json} == {"ok"}
    assert "it_is_found_by_its_entry_point" in {line["test"] for line in done.json}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["method", "trainer"])
def test_a_new_method_or_trainer_keeps_its_promises_at_once(
    adapterhub: CommandLine, tmp_path: Path, kind: str
) -> None:
    done = made(adapterhub, tmp_path, "fresh", kind).ok("plugins", "check", "fresh")
    rows = done.out.splitlines()
    assert not [row for row in rows if row.endswith("failed")]
    assert len([row for row in rows if row.endswith(" ok")]) > 8


def test_a_broken_promise_is_named_and_fails_the_check(
    adapterhub: CommandLine, tmp_path: Path
) -> None:
    site = write_plugin(tmp_path / "site", "adapterhub_leaky", LEAKY, name="leaky")
    done = adapterhub.having(PYTHONPATH=str(site))("plugins", "check", "leaky")
    assert done.code == 10
    [row] = [line for line in done.out.splitlines() if line.startswith("what is asked is never")]
    assert row.split()[-1] == "failed"
    assert "it makes as many rows as asked for" in done.out
    assert done.complaint[0].endswith("tests of leaky failed")


def test_check_refuses_what_it_cannot_check(adapterhub: CommandLine, tmp_path: Path) -> None:
    site = write_plugin(tmp_path / "site", "adapterhub_bad", "import nowhere_at_all", name="bad")
    hub = adapterhub.having(PYTHONPATH=str(site))
    for name, code, said in (
        ("bad", 10, "nowhere_at_all"),
        ("directory", 2, "no method, trainer, strategy or task"),
        ("nobody", 3, "nobody"),
    ):
        done = hub("plugins", "check", name)
        assert (done.code, said in done.complaint[0]) == (code, True)
    off = hub.having(ADAPTERHUB_DISABLE_PLUGINS="sft")("plugins", "check", "sft")
    assert (off.code, "switched off" in off.complaint[0]) == (2, True)
    place = hub("plugins", "check", "lora", "--on", "llama")
    assert (place.code, "llama-bf16" in place.complaint[1]) == (2, True)


def test_without_pytest_the_extra_is_named(adapterhub: CommandLine, tmp_path: Path) -> None:
    # An interpreter that finds no pytest: the finder for it comes first and finds nothing.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, package=None: (\n"
        "    None if name == 'pytest' else found(name, package))\n"
    )
    done = adapterhub.having(PYTHONPATH=str(tmp_path))("plugins", "check", "linear")
    assert done.code == 8
    assert "adapterhub[testing]" in done.complaint[1]
