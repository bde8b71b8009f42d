"""`methods NAME` says what an option is for; an unknown option leads there."""

from __future__ import annotations

import pytest

from adapterhub.plugin.catalog import catalog
from tests.command_line import CommandLine


def test_a_method_tells_its_options_with_default_and_meaning(adapterhub: CommandLine) -> None:
    done = adapterhub.ok("methods", "bottleneck")
    assert "-O KEY=VALUE" in done.out
    [line] = [line for line in done.out.splitlines() if line.startswith("reduction")]
    assert "16" in line
    [found] = adapterhub.ok("methods", "bottleneck", "--json").json
    assert (found["kind"], found["options"].keys()) == (
        "method",
        catalog().methods["bottleneck"].options.keys(),
    )


def test_a_trainer_and_a_strategy_can_be_asked_about_too(adapterhub: CommandLine) -> None:
    assert "--trainer-option" in adapterhub.ok("methods", "distill").out
    assert "2212.04089" in adapterhub.ok("methods", "linear").out


def test_a_name_that_is_none_is_told_the_nearest(adapterhub: CommandLine) -> None:
    done = adapterhub("methods", "bottlenek")
    assert done.code == 3
    assert "did you mean 'bottleneck'?" in done.err


@pytest.mark.parametrize("shelf", ["methods", "trainers"])
def test_every_bundled_record_with_options_names_them(shelf: str) -> None:
    records = [entry.record for entry in getattr(catalog(), shelf)]
    assert [record.name for record in records if not record.options] == (
        [] if shelf == "methods" else ["sft"]
    )
