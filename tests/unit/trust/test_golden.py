"""Golden samples come from rows that were not trained on; whoever verifies asks them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.manifest import Manifest
from adapterhub.domain.match import record_of
from adapterhub.errors import UsageError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.folder import read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing.practice import items
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.trust.attached import verify_attached
from adapterhub.trust.golden import conversation_digest, golden_items
from adapterhub.trust.record import record_probe

pytestmark = pytest.mark.models

ITEMS = [item for _, item in items()]


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Base:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    return add_tiny_base("llama", "bf16", home)


def stored(folder: Path, base: Base) -> Manifest:
    folder.mkdir()
    config = method_of("prompt_design").new_config(base.spec, {"system": "Answer\nin Korean."})
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    manifest = Manifest(method="prompt_design", config_version=1, base=record_of(base.spec))
    (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
    return record_probe(folder, base, name="acme/a", golden=ITEMS[:2])


def rewrite(folder: Path, manifest: Manifest) -> None:
    (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))


def test_samples_are_shown_and_asked_again(base: Base, tmp_path: Path) -> None:
    made = stored(tmp_path / "a", base)
    assert read_folder(tmp_path / "a").manifest == made
    assert [sample.messages for sample in made.golden] == [item.messages for item in ITEMS[:2]]
    card = (tmp_path / "a" / "README.md").read_text()
    assert "## Golden samples" in card
    assert "2 + 2" in card
    problems, facts = verify_attached(tmp_path / "a", base.spec, device="cpu")
    assert (problems, facts["golden"]) == ([], "2 of 2 answers are those recorded")


def test_another_answer_is_a_problem_only_where_nothing_else_differs(
    base: Base, tmp_path: Path
) -> None:
    made = stored(tmp_path / "a", base)
    first = replace(made.golden[0], answer="something else")
    changed = replace(made, golden=(first, *made.golden[1:]))
    rewrite(tmp_path / "a", changed)
    problems, facts = verify_attached(tmp_path / "a", base.spec, device="cpu")
    assert [problem.code for problem in problems] == ["golden-mismatch"]
    assert facts["golden"] == "1 of 2 answers are those recorded"
    assert made.probe is not None
    elsewhere = replace(made.probe, environment=replace(made.probe.environment, device="cuda"))
    rewrite(tmp_path / "a", replace(changed, probe=elsewhere))
    problems, facts = verify_attached(tmp_path / "a", base.spec, device="cpu")
    assert problems == []
    assert facts["golden"].endswith("cuda then, cpu now, which may change some")


def test_a_row_that_was_trained_on_is_never_a_sample() -> None:
    trained_on = {conversation_digest(item.messages) for item in ITEMS[:2]}
    assert golden_items(ITEMS, 2, trained_on=trained_on) == ITEMS[2:4]
    with pytest.raises(UsageError, match="2 of 4 rows can be golden samples, not 3"):
        golden_items(ITEMS, 3, trained_on=trained_on)
    with pytest.raises(UsageError, match="33 golden samples"):
        golden_items(ITEMS, 33)


def test_a_row_too_long_to_show_is_passed_over() -> None:
    long = Item(messages=(Message(role="user", content="x" * 3000),), answer="y")
    assert golden_items([long, *ITEMS], 1) == ITEMS[:1]


def test_a_sample_cannot_forge_a_card(base: Base, tmp_path: Path) -> None:
    made = stored(tmp_path / "a", base)
    hostile = replace(made.golden[0], answer="\x1b[2J`</td>| x |\n\n# Safe")
    card = render_card(replace(made, golden=(hostile,)), name="acme/a")
    assert "\x1b" not in card
    assert "\n# Safe" not in card
    (line,) = [line for line in card.splitlines() if "Safe" in line]
    assert line.count(" | ") == 1
    assert "`` \\u001b[2J`</td>" in line
