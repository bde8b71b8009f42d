"""Which names and lists of files are let in."""

from __future__ import annotations

import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from adapterhub.domain.stores import FileEntry
from adapterhub.errors import FormatError
from adapterhub.hub.paths import MAX_FILE_BYTES, check_paths, conversion, is_wanted, unsafe, wanted

HOSTILE = (
    "",
    "/etc/passwd",
    "../up.json",
    "a/../b.json",
    "a//b.json",
    "./a.json",
    "a\\b.json",
    "C:a.json",
    "nul\0.json",
    "line\nbreak.json",
    "csi\x9b2J.json",
    "con.json",
    "a/LPT1",
    "COM¹.txt",
    "trailing.",
    "trailing ",
    "dir /a.json",
    ".git/config",
    "a/.GIT/hooks",
    "git~1/x",
    "what?.json",
    "star*.json",
    "\u202egnp.json",
    "half\ud800.json",
    "x" * 300,
)
COLLIDING = (
    ("README.md", "readme.md"),
    ("caf\u00e9.md", "cafe\u0301.md"),
    ("stra\u00dfe.md", "strasse.md"),
    ("a", "a/b.json"),
    ("a/b.json", "A"),
    ("A/x.json", "a/y.json"),
)


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_name_is_unsafe(path: str) -> None:
    assert unsafe(path)


@pytest.mark.parametrize(
    "path", ["adapter_config.json", "a/b/c.txt", ".gitattributes", "한국어.md", "with space.md"]
)
def test_an_ordinary_name_is_safe(path: str) -> None:
    assert unsafe(path) is None


@pytest.mark.parametrize("paths", COLLIDING)
def test_names_that_collide_somewhere_are_refused(paths: tuple[str, str]) -> None:
    with pytest.raises(FormatError, match="some systems"):
        check_paths(paths, name="user/x")


def test_files_may_share_a_folder() -> None:
    check_paths(["a/x.json", "a/y.json", "a/b/z.json"], name="user/x")


def test_too_many_files_are_refused() -> None:
    with pytest.raises(FormatError, match="more than 1000"):
        check_paths((f"{index}.json" for index in range(1001)), name="user/x")


@pytest.mark.parametrize("size", [MAX_FILE_BYTES + 1, -1])
def test_a_file_of_absurd_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="bytes"):
        wanted([FileEntry(path="a.safetensors", size=size, sha256="0" * 64)], name="user/x")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("adapter_model.safetensors", True),
        ("chat_template.jinja", True),
        ("tokenizer.model", True),
        ("LICENSE", True),
        ("adapter_model.bin", False),
        ("training_args.bin", False),
        ("plot.png", False),
        (".gitattributes", False),
        (".cache/x.json", False),
        ("checkpoint-500/adapter_model.safetensors", False),
        ("setup.py", False),
    ],
)
def test_only_files_of_an_adapter_are_wanted(path: str, expected: bool) -> None:
    assert is_wanted(path) is expected


def test_a_pickle_is_converted_by_a_command_of_its_own() -> None:
    with pytest.raises(FormatError) as caught:
        wanted([FileEntry(path="adapter_model.bin", size=1)], name="me/mine")
    assert conversion("adapter_model.bin") in (caught.value.hint or "")
    assert shlex.split(conversion("a'; rm -rf ~ #.bin"))[-1] == "a'; rm -rf ~ #.bin"


@pytest.mark.models
def test_the_command_converts_tensors_and_runs_nothing(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    names = ("good one.bin", "bad.bin")
    torch.save({"w": torch.arange(6.0).reshape(2, 3).t()}, tmp_path / names[0])
    (tmp_path / names[1]).write_bytes(pickle.dumps(Planted(tmp_path / "planted")))
    (tmp_path / "torch.py").write_text("raise SystemExit('imported from the folder')")
    codes = []
    for name in names:
        words = shlex.split(conversion(name))
        # Not every machine lets a test make a network namespace.
        assert words[:3] == ["unshare", "-rn", "python3"]
        done = subprocess.run(
            [sys.executable, *words[3:]], cwd=tmp_path, check=False, capture_output=True
        )
        codes.append(done.returncode)
    assert codes == [0, 1]
    assert load_file(tmp_path / "adapter_model.safetensors")["w"].shape == (3, 2)
    assert not (tmp_path / "planted").exists()


class Planted:
    """Writes a file when it is unpickled by the usual means."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")
