"""`doctor` says what works, what is not there, and fails only for what is needed and broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.command_line import NOBODY, CommandLine
from tests.plugin_folders import write_plugin


@pytest.fixture
def quick(adapterhub: CommandLine, tmp_path: Path) -> CommandLine:
    """Without torch, whose import takes most of the time and says nothing here."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    return adapterhub.having(PYTHONPATH=str(site))


def checks(run: CommandLine, *words: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in run.ok("doctor", "--json", *words).json["checks"]}


def test_a_new_machine_is_fine_and_nothing_is_made_on_it(quick: CommandLine) -> None:
    found = checks(quick)
    assert {found[name]["state"] for name in ("python", "home", "locks", "leftovers")} == {"ok"}
    assert found["models"]["state"] == "absent"
    assert found["bases"]["found"] == "none"
    assert found["remotes"]["found"] == "not asked; --network does"
    assert not quick.home.exists()


def test_remotes_are_asked_where_that_is_wanted(quick: CommandLine) -> None:
    found = checks(quick, "--network")
    assert found["remote local"]["state"] == "ok"
    assert found["remote hub"]["state"] == "note"
    assert NOBODY in found["remote hub"]["found"]


def test_a_home_that_cannot_be_written_is_broken(quick: CommandLine) -> None:
    quick.home.write_text("a file where the folder should be")
    closed = quick.having(ADAPTERHUB_HOME=f"{quick.home}/below")("doctor")
    assert closed.code == 1
    assert closed.complaint[0] == "broken on this machine: home"
    assert "ADAPTERHUB_HOME" in closed.complaint[1]
    assert any(line.startswith("!  home") for line in closed.out.splitlines())


def test_what_killed_runs_left_is_counted(quick: CommandLine, published: str) -> None:
    quick.ok("pull", published)
    assert checks(quick)["leftovers"]["state"] == "ok"
    (quick.home / "cache" / "tmp" / "killed").mkdir(parents=True)
    (quick.home / "cache" / "tmp" / "killed" / "part").write_bytes(b"x" * 5000)
    orphan = quick.home / "cache" / "objects" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"x" * 7000)
    found = checks(quick)["leftovers"]["found"]
    assert found == "1 of unfinished work (5.0 kB), 1 cached files of no adapter (7.0 kB)"


def test_a_strangers_broken_plugin_and_a_broken_base_are_told_and_are_no_failure(
    quick: CommandLine, named_base: str
) -> None:
    (quick.home / "bases" / named_base / "base.json").write_text("{")
    site = Path(quick.variables["PYTHONPATH"])
    write_plugin(site, "adapterhub_houlsby", "\nimport foo_of_nobody\n", version="0.0.4")
    found = checks(quick)
    assert "foo_of_nobody" in found["plugin adapterhub_houlsby"]["found"]
    assert found[f"base {named_base}"]["hint"] == f"adapterhub base rm {named_base}"


@pytest.mark.models
def test_torch_and_4_bits_are_tried(adapterhub: CommandLine) -> None:
    found = checks(adapterhub)
    assert found["torch"]["state"] == "ok"
    assert found["4 bits"]["found"].startswith("NF4 quantizes and multiplies")
    assert {"device", "processor"} <= set(found)
