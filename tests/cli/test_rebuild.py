"""A composition that one user pushes is rebuilt by another, to the same bytes or not at all."""

from __future__ import annotations

import hashlib
import math
import random
import struct
from pathlib import Path

import pytest

from tests.adapter_files import Tensor, lora_tensors, write_lora
from tests.command_line import CommandLine

pytestmark = pytest.mark.models


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A registry that both can reach."""
    return tmp_path / "team"


def user(name: str, tmp_path: Path, team: Path) -> CommandLine:
    place = tmp_path / name
    place.mkdir()
    run = CommandLine(place / "home", cwd=place)
    run.ok("remote", "add", "team", team.as_uri())
    return run


@pytest.fixture
def author(tmp_path: Path, team: Path) -> CommandLine:
    """Has published two adapters and a composition of them."""
    run = user("author", tmp_path, team)
    for index, name in enumerate(("one", "two")):
        write_lora(tmp_path / "author" / name, tensors=random_tensors(index))
        run.ok("push", name, f"acme/{name}", "--to", "team")
    ties = ("--strategy", "ties", "--rank", "2", "--density", "0.3")
    run.ok("stack", "team:acme/one", "team:acme/two*0.5", *ties)
    run.ok("push", "composition.toml", "acme/both", "--to", "team")
    return run


def random_tensors(seed: int) -> dict[str, Tensor]:
    draw = random.Random(seed)
    return {
        name: (dtype, shape, struct.pack(f"<{n}f", *(draw.gauss(0, 1) for _ in range(n))))
        for name, (dtype, shape, _) in lora_tensors().items()
        for n in [math.prod(shape)]
    }


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_another_user_rebuilds_the_same_bytes(
    author: CommandLine, tmp_path: Path, team: Path
) -> None:
    author.ok("stack", "--from", "composition.toml", "-o", "merged")
    other = user("other", tmp_path, team)
    other.ok("pull", "team:acme/both")
    other.ok("stack", "--from", "team:acme/both", "-o", "merged")
    mine, theirs = (digests(tmp_path / name / "merged") for name in ("author", "other"))
    assert "adapter_model.safetensors" in mine
    assert mine == theirs
    # The author's word for it goes on where it was pulled.
    other.ok("stack", "--from", "team:acme/both", "-o", "again.toml")
    other.ok("stack", "--from", "again.toml", "-o", "again")
    assert (
        digests(tmp_path / "other" / "again")["adapter_model.safetensors"]
        == (mine["adapter_model.safetensors"])
    )


def test_a_parent_that_changed_is_refused_by_name(author: CommandLine, tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "author" / "here", tensors=random_tensors(3))
    author.ok("stack", "team:acme/one", "./here", "-o", "local.toml")
    write_lora(folder, tensors=random_tensors(4))
    done = author("stack", "--from", "local.toml", "-o", "merged")
    assert done.code == 4
    assert "here is not the adapter that was pinned" in done.complaint[0]
    assert not (tmp_path / "author" / "merged").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--from", "composition.toml", "--rank", "8"), "composition.toml says everything itself"),
        (("--from", "composition.toml", "./one"), "composition.toml says everything itself"),
        ((), "there is nothing to put together"),
    ],
    ids=["a rank", "another", "nothing"],
)
def test_from_is_the_whole_of_it(
    words: tuple[str, ...], says: str, adapterhub: CommandLine
) -> None:
    done = adapterhub("stack", *words)
    assert done.code == 2
    assert says in done.complaint[0]
    assert len(done.complaint) == 2
