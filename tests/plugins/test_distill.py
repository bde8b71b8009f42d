"""Learning from a teacher: what is asked of it and what is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.manifest import Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.protocols import Example
from adapterhub.errors import MismatchError, UsageError
from adapterhub.formats.manifest import encode_manifest
from adapterhub.models.loader import Base
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.objective import make_objective
from adapterhub_plugins.distill.rows import paired
from tests.distilling import ITEMS, SLOT, Run, learning, recipe
from tests.other_bases import MERGES, add_wide_base, store_lora

pytestmark = pytest.mark.models


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def base(home: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    return add_tiny_base("llama", "bf16", home)


@pytest.fixture
def teacher(base: Base, tmp_path: Path) -> str:
    return str(store_lora(base, tmp_path / "teacher", seed=1))


def size(gradient: dict[str, Any]) -> float:
    import torch

    return float(torch.stack([tensor.norm() for tensor in gradient.values()]).norm())


def answer_logits(base: Base, run: Run) -> Any:
    """Row by row, without padding: the logits before each token of the answers."""
    import torch

    parts = []
    for row in run.examples:
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([row.ids])).logits[0]
        parts.append(logits[row.answer_start - 1 : -1])
    return torch.cat(parts).double()


# --- what is minimised ------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [0.0, 0.3, 1.0])
def test_the_loss_mixes_the_divergence_and_the_labels(
    hard: float, base: Base, teacher: str
) -> None:
    import torch

    with learning(base, teacher=teacher, trainer_options={"hard": hard, "temperature": 3.0}) as run:
        shake(run.student, seed=5)
        found, _ = run.loss()
        ours = answer_logits(base, run)
        run.student.deactivate()
        for slot in run.rack.attached:
            if slot != SLOT:
                run.rack.attached[slot].activate()
        theirs = answer_logits(base, run)
    log_q, log_p = ((side / 3).log_softmax(dim=-1) for side in (ours, theirs))
    soft = 9 * (log_p.exp() * (log_p - log_q)).sum()
    labels = torch.tensor([t for row in run.examples for t in row.ids[row.answer_start :]])
    entropy = torch.nn.functional.cross_entropy(ours, labels, reduction="sum")
    expected = float(hard * entropy + (1 - hard) * soft) / len(labels)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "js"])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(
    divergence: str, base: Base, teacher: str
) -> None:
    from safetensors.torch import load_file

    options = {"hard": 0.0, "divergence": divergence}
    with learning(base, teacher=teacher, trainer_options=options) as run:
        _, before = run.loss()
        state = load_file(Path(teacher) / "adapter_model.safetensors")
        for name, tensor in run.student.parameters().items():
            tensor.data.copy_(state[name])
        loss, gradient = run.loss()
    assert abs(loss) < 1e-4
    assert size(gradient) < 1e-3 * size(before)


def test_a_student_comes_to_say_what_its_teacher_says(base: Base, teacher: str) -> None:
    with learning(base, teacher=teacher, trainer_options={"hard": 0.0}) as run:
        first, last = run.fit()
    assert last < 0.3 * first


def test_only_the_student_learns(base: Base, teacher: str) -> None:
    import torch

    before = {name: tensor.clone() for name, tensor in base.model.named_parameters()}
    with learning(base, teacher=teacher) as run:
        kept = {s: a.state() for s, a in run.rack.attached.items() if s != SLOT}
        run.fit()
        assert kept
        for slot, state in kept.items():
            now = run.rack.attached[slot].state()
            assert all(torch.equal(state[name], now[name]) for name in state)
        others = [a for s, a in run.rack.attached.items() if s != SLOT]
        assert not any(t.grad is not None for a in others for t in a.parameters().values())
    after = dict(base.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_packed_rows_teach_what_padded_rows_teach(base: Base, teacher: str) -> None:
    with learning(base, teacher=teacher) as run:
        shake(run.student, seed=5)
        padded, expected = run.loss()
        packed, gradient = run.loss(in_one_row)
    assert packed == pytest.approx(padded, rel=1e-4)
    for name, tensor in expected.items():
        assert (gradient[name] - tensor).abs().max() < 1e-3 * tensor.abs().max() + 1e-6


def in_one_row(examples: list[Any], *, pad: int, device: str) -> dict[str, Any]:
    """The batch of `Objective` with all examples in one row."""
    import torch

    labels = torch.tensor(
        [[x for e in examples for x in (-100,) * e.answer_start + e.ids[e.answer_start :]]]
    )
    return {
        "input_ids": torch.tensor([[token for e in examples for token in e.ids]]),
        "attention_mask": None,
        "position_ids": torch.tensor([[i for e in examples for i in range(len(e.ids))]]),
        "labels": labels,
        "columns": (labels != -100).any(dim=0).nonzero()[:, 0] - 1,
        "examples": tuple(examples),
    }


# --- other teachers ---------------------------------------------------------------------------


def test_several_adapters_teach_as_their_sum(base: Base, tmp_path: Path) -> None:
    one, two = (store_lora(base, tmp_path / name, seed=i) for i, name in enumerate(("a", "b")))
    with learning(base, teacher=f"{one}+0.5*{two}", trainer_options={"hard": 0.0}) as run:
        assert len(run.rack.attached) == 3
        first, last = run.fit()
    assert last < 0.3 * first


@pytest.mark.parametrize("heads", [263, 320])
def test_a_bigger_base_teaches_even_with_a_padded_head(heads: int, base: Base, home: Path) -> None:
    wide = add_wide_base(home, name=f"wide-{heads}", heads=heads)
    with learning(base, teacher_base=wide.spec.name, trainer_options={"hard": 0.0}) as run:
        first, last = run.fit()
    assert last < 0.7 * first


def test_another_vocabulary_is_refused_with_a_token_that_shows_it(base: Base, home: Path) -> None:
    other = add_wide_base(home, name="merging", merges=MERGES, heads=300)
    with (
        pytest.raises(
            MismatchError, match=r"merging .* \(268 tokens\) .* \(263\): 'bl' is"
        ) as caught,
        learning(base, teacher_base=other.spec.name),
    ):
        pass
    assert "align=true" in (caught.value.hint or "")


def test_aligned_another_vocabulary_teaches(base: Base, home: Path) -> None:
    other = add_wide_base(home, name="merging", merges=MERGES, heads=300)
    options = {"align": True}
    with learning(base, teacher_base=other.spec.name, trainer_options=options) as run:
        rows = [run.objective._theirs[row] for row in run.examples]
        assert any(len(a.ids) != len(b.ids) for a, b in zip(rows, run.examples, strict=True))
        first, last = run.fit()
    assert last < 0.8 * first


def test_answers_are_paired_from_their_beginnings() -> None:
    ours = [
        Example(ids=(9, 1, 2, 3), answer_start=1, line=1),
        Example(ids=(9, 4), answer_start=1, line=2),
    ]
    theirs = [
        Example(ids=(8, 8, 5, 6), answer_start=2, line=1),
        Example(ids=(8, 7, 7), answer_start=1, line=2),
    ]
    assert paired(ours, theirs) == ([0, 1, 3], [0, 1, 2])


def test_a_designed_prompt_is_learnt_by_heart(base: Base, tmp_path: Path) -> None:
    """The teacher is the student's base with a system prompt that the student does without."""
    folder = tmp_path / "designed"
    folder.mkdir()
    config = {"method": "prompt_design", "system": "Answer in one word."}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    manifest = Manifest(method="prompt_design", config_version=1, base=record_of(base.spec))
    (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
    with learning(base, teacher=str(folder), trainer_options={"hard": 0.0}) as run:
        rows = [run.objective._theirs[row] for row in run.examples]
        assert all(a.answer_start > b.answer_start for a, b in zip(rows, run.examples, strict=True))
        first, last = run.fit()
    assert last < 0.5 * first


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "needs a teacher"),
        ({"teacher_base": "tiny-llama-bf16"}, "teacher and student are the same"),
        ({"teacher": "x", "trainer_options": {"tau": 2}}, "no option 'tau'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_before_anything_is_loaded(
    more: dict[str, Any], message: str, base: Base
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_objective(recipe(base, **more))
    assert caught.value.hint


def test_without_a_teacher_there_is_nothing_to_learn_from(base: Base) -> None:
    objective = make_objective(recipe(base, teacher="x"))
    with pytest.raises(UsageError, match="no teacher to ask"):
        objective.examples(ITEMS, base.chat)
