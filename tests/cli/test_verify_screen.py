"""Promises of what `verify` and its like say on the screen, and of paths that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.manifest import BaseRecord
from adapterhub.formats.composition_file import encode_composition
from tests.adapter_files import MODULES, PREFIX, f32, lora_tensors, write_lora
from tests.command_line import CommandLine

ZERO_B = {f"{PREFIX}{MODULES[0]}.lora_B.weight": f32((8, 2), 0.0)}


def test_idle_modules_are_counted_on_the_screen(adapterhub: CommandLine, tmp_path: Path) -> None:
    write_lora(tmp_path / "half", tensors=lora_tensors() | ZERO_B)
    write_lora(tmp_path / "full")
    assert "1 of 2 modules change nothing" in adapterhub.ok("verify", "./half").out
    assert "change nothing" not in adapterhub.ok("verify", "./full").out


def test_the_members_of_a_composition_are_called_unchecked(
    adapterhub: CommandLine, tmp_path: Path
) -> None:
    term = PinnedTerm(ref="user/one", weight=1.0, sha256="a" * 64)
    pinned = PinnedComposition(base=BaseRecord(id="acme/tiny"), terms=(term,))
    (tmp_path / "sum").mkdir()
    (tmp_path / "sum" / "composition.toml").write_bytes(encode_composition(pinned))
    assert "members    unchecked" in adapterhub.ok("verify", "./sum").out


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize("path", ["./missing", "no/such/folder", "~no-such-user-here/x"])
def test_a_path_that_leads_nowhere_is_not_found(
    adapterhub: CommandLine, command: str, path: str
) -> None:
    assert adapterhub(command, path).code == 3
