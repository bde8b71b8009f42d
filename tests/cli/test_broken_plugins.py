"""`adapterhub plugins` shows what is broken and why; no other command notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import CommandLine
from tests.plugin_folders import write_plugin

TASK = """
from adapterhub.plugin import Task, hookimpl
@hookimpl
def adapterhub_tasks():
    return [Task(name="{name}", summary="of a test", target="nowhere:Nothing")]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    write_plugin(site, "adapterhub_houlsby", "\nimport foo_of_nobody\n", version="0.0.4")
    write_plugin(site, "adapterhub_leaves", "raise SystemExit(3)")
    write_plugin(site, "adapterhub_riddles", TASK.format(name="riddles"))
    write_plugin(site, "adapterhub_twin", TASK.format(name="iso-dates"))
    return site


@pytest.fixture
def with_plugins(adapterhub: CommandLine, site: Path) -> CommandLine:
    return adapterhub.having(PYTHONPATH=str(site))


def lines(text: str) -> dict[str, str]:
    """Each line of the table by the name of its plugin."""
    return {line.removeprefix("!").split()[0]: line for line in text.splitlines()[1:]}


def test_broken_plugins_are_marked_and_say_why(with_plugins: CommandLine) -> None:
    done = with_plugins.ok("plugins")
    shown = lines(done.out)
    cause = "broken: ModuleNotFoundError: No module named 'foo_of_nobody' (adapterhub_houlsby.py:2)"
    assert shown["adapterhub_houlsby"].split("  ") == [
        "!", "adapterhub_houlsby", "adapterhub-houlsby 0.0.4", cause,
    ]  # fmt: skip
    assert shown["adapterhub_leaves"].endswith("broken: SystemExit: 3 (adapterhub_leaves.py:1)")
    assert not shown["adapterhub_riddles"].startswith("!")
    assert done.err == ""


def test_both_owners_of_a_taken_name_are_marked(with_plugins: CommandLine) -> None:
    shown = lines(with_plugins.ok("plugins").out)
    assert shown["demo_tasks"].startswith("!")
    assert (
        "'iso-dates' is claimed by adapterhub_twin (adapterhub-twin 1.0) too" in shown["demo_tasks"]
    )
    assert shown["adapterhub_twin"].startswith("!")


def test_the_json_has_the_cause_too(with_plugins: CommandLine) -> None:
    problems = {p["plugin"]: p["problem"] for p in with_plugins.ok("plugins", "--json").json}
    assert problems["adapterhub_leaves"] == "SystemExit: 3 (adapterhub_leaves.py:1)"
    assert problems["adapterhub_riddles"] is None


def test_no_other_command_notices(with_plugins: CommandLine, adapter: Path) -> None:
    with_plugins.ok("push", adapter, "acme/tiny-lora")
    pulled = with_plugins.ok("pull", "acme/tiny-lora")
    assert "houlsby" not in pulled.out + pulled.err
    assert with_plugins.ok("verify", adapter).err == ""
    tasks = [task["name"] for task in with_plugins.ok("methods", "--json").json["tasks"]]
    assert tasks == ["riddles", "strict-json"]


def test_a_taken_name_is_refused_with_both_owners_and_the_way_out(
    with_plugins: CommandLine, adapter: Path
) -> None:
    done = with_plugins("eval", adapter, "--task", "iso-dates")
    both = "adapterhub_twin (adapterhub-twin 1.0) and demo_tasks (adapterhub "
    assert done.code == 10
    assert done.complaint[0].startswith(f"the task 'iso-dates' is claimed by {both}")
    assert "ADAPTERHUB_DISABLE_PLUGINS=" in done.complaint[1]


def test_switching_one_off_gives_the_name_back(with_plugins: CommandLine) -> None:
    run = with_plugins.having(ADAPTERHUB_DISABLE_PLUGINS="adapterhub_twin")
    assert lines(run.ok("plugins").out)["adapterhub_twin"].endswith("switched off")
    tasks = [task["name"] for task in run.ok("methods", "--json").json["tasks"]]
    assert tasks == ["iso-dates", "riddles", "strict-json"]


def test_with_all_switched_off_the_command_still_answers(with_plugins: CommandLine) -> None:
    run = with_plugins.having(ADAPTERHUB_DISABLE_PLUGINS="all")
    assert all(p["disabled"] for p in run.ok("plugins", "--json").json)
    done = run("pull", "local:acme/tiny-lora")
    assert (done.code, done.complaint[0].split(" 'file:")[0]) == (2, "no plugin can open")
