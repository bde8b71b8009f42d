"""`eval` of task files: the README's own example, raw text and a library's signature."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.command_line import SCRIPT, CommandLine
from tests.readme_files import write_readme_files

pytestmark = pytest.mark.models
TINY = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.formats.adapter_config import encode_config
from adapterhub.models.bases import add_base, find_base
from adapterhub.models.loader import load_base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import write_tiny
place = Path(sys.argv[1])
add_base("tiny", str(write_tiny("llama", place / "tiny")), scheme_by_name("nf4"))
base = load_base(find_base("tiny"), device="cpu")
config = method_of("lora").new_config(base.spec, {"rank": 2})
adapter = Rack(base).attach_fresh("made", "lora", config, seed=0)
shake(adapter)
(place / "one").mkdir()
(place / "one" / "adapter_config.json").write_bytes(encode_config(config))
save_file(adapter.state(), place / "one" / "adapter_model.safetensors", {"format": "pt"})
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A tiny base, the adapter `one` for it, and the README's files."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TINY, str(place)], env=run.environment, check=True)
    write_readme_files(place)
    return run


def write(machine: CommandLine, name: str, rows: list[dict[str, Any]], **keys: Any) -> None:
    assert machine.cwd is not None
    folder = machine.cwd / name
    folder.mkdir()
    data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    (folder / "items.jsonl").write_bytes(data)
    named = {"name": name, "version": "1", "rows": "items.jsonl"}
    table = {**named, "sha256": hashlib.sha256(data).hexdigest(), **keys}
    (folder / "task.toml").write_text(tomli_w.dumps(table))


def test_the_readme_shows_a_task_that_is_measured(machine: CommandLine, tmp_path: Path) -> None:
    names = [path.relative_to(tmp_path).as_posix() for path in write_readme_files(tmp_path)]
    assert names == ["calendar/items.jsonl", "calendar/task.toml"]
    done = machine("eval", "one", "--base", "tiny", "--task", "calendar", "--json")
    assert done.code == 0, done.err
    rows = [*done.json["base"]["rows"], *done.json["rows"]]
    assert [(row["task"], row["metric"], row["n"]) for row in rows] == [
        ("calendar@1", "acc", 2),
        ("calendar@1", "acc_norm", 2),
    ] * 2
    assert all(row["score"] in (0.0, 0.5, 1.0) for row in rows)


def test_raw_text_is_measured_and_a_signature_kept(machine: CommandLine) -> None:
    pairs = [{"prompt": f"{n} and one are", "completion": str(n + 1)} for n in range(4)]
    raw = {"kind": "generate", "chat": False, "stop": ["\n"], "max_new_tokens": 6}
    write(machine, "sums", pairs, metrics=["bleu", "bits_per_byte"], **raw)
    write(machine, "texts", [{"text": "One two three."}] * 2, kind="likelihood", chat=False)
    words = ("eval", "one", "--base", "tiny", "--task", "sums")
    done = machine(*words, "--task", "texts", "--json")
    assert done.code == 0, done.err
    bleu, bits, texts = done.json["rows"]
    assert bleu["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "signature" not in bits
    assert bits["score"] > 0
    assert texts["delta"] != 0
    screen = machine(*words, "--task", "calendar").out
    assert "sums@1 · 4 items · BLEU, 0 to 100 (higher is better)\nsacrebleu nrefs:1|" in screen
    assert "calendar@1 · 2 items · likeliest choice, % of items (higher is better)" in screen


@pytest.mark.parametrize(
    ("keys", "code", "fact", "hint"),
    [
        ({"kind": "choise"}, 4, "kind: invalid enum value 'choise'", "'kind'"),
        ({"kind": "generate", "metrcs": []}, 4, "the key 'metrcs' is not known", "'metrics'"),
        ({"kind": "generate", "sha256": "0" * 64}, 4, "is not what", "new version"),
        ({"kind": "generate", "metrics": ["acc"]}, 4, "not measured by acc", "exact_match"),
        ({"kind": "choice"}, 6, "items.jsonl line 1: ", '"choices"'),
    ],
)
def test_a_task_that_is_wrong_is_refused_before_a_base_is_loaded(
    machine: CommandLine, keys: dict[str, Any], code: int, fact: str, hint: str
) -> None:
    assert machine.cwd is not None
    name = f"wrong{len(list(machine.cwd.iterdir()))}"
    write(machine, name, [{"prompt": "a", "completion": "b"}], **keys)
    done = machine("eval", "one", "--base", "nobody", "--task", f"./{name}")
    assert done.code == code
    assert fact in done.complaint[0]
    assert hint in done.complaint[1]


def test_what_knows_conversations_only_says_so(machine: CommandLine) -> None:
    pairs = [{"prompt": "a", "completion": "b"}]
    write(machine, "raw", pairs, kind="generate", chat=False)
    words = ("merge", "one", "--base", "tiny", "--into", "bf16", "-o", "merged", "--task", "raw")
    done = machine(*words)
    assert done.code == 2
    assert done.complaint[0].startswith("raw@1 asks about raw text")
