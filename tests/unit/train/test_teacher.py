"""A teacher answers as what it names, shares what it can, and leaves no trace in the student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.compose.members import open_member
from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.evaluation import Message
from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import DataError, MismatchError, NotFoundError, UsageError
from adapterhub.formats.composition_file import encode_composition
from adapterhub.hub.folder import read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.plain import base_bytes
from adapterhub.testing.practice import examples, shake
from adapterhub.testing.tiny import PAD, add_tiny_base
from adapterhub.train.data import collate
from adapterhub.train.named_teacher import named_teacher
from adapterhub.train.teacher import StoredTeacher, open_teacher
from tests.other_bases import add_wide_base, store_lora

pytestmark = pytest.mark.models

SLOT = "trained"


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))


@pytest.fixture
def stored(base: Base, tmp_path: Path) -> str:
    return str(store_lora(base, tmp_path / "teacher", seed=1))


def opened(recipe: Recipe, base: Base, rack: Rack) -> StoredTeacher:
    named = named_teacher(recipe, base.spec)
    assert named is not None
    return open_teacher(named, base, rack, student=SLOT)


@contextmanager
def teaching(base: Base, rack: Rack | None = None, **names: Any) -> Iterator[StoredTeacher]:
    recipe = Recipe(base=base.spec.name, data="rows", trainer="distill", **names)
    teacher = opened(recipe, base, rack or Rack(base))
    try:
        yield teacher
    finally:
        teacher.close()


def attach_student(rack: Rack) -> AttachedAdapter:
    base = rack.base
    config = method_of("lora").new_config(base.spec, {"rank": 4})
    student = rack.attach_fresh(SLOT, "lora", config, seed=0)
    shake(student, seed=3)
    student.activate()
    for tensor in student.parameters().values():
        tensor.requires_grad_(True)
    return student


def batch(base: Base) -> dict[str, Any]:
    return collate(examples(base), pad=PAD, device="cpu")


def says(base: Base, asked: dict[str, Any] | None = None) -> Any:
    """What the base says now, at the batch's columns."""
    import torch

    asked = asked or batch(base)
    with torch.no_grad():
        return base.model(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            position_ids=asked["position_ids"],
            logits_to_keep=asked["columns"],
        ).logits


# --- what it says -----------------------------------------------------------------------------


def test_it_answers_as_its_adapter_while_the_student_is_silent(base: Base, stored: str) -> None:
    import torch

    rack = Rack(base)
    with teaching(base, rack, teacher=stored) as teacher:
        attach_student(rack)
        found = teacher.logits(batch(base))
        rack.activate(teacher.slots)
        expected = says(base)
        rack.detach(SLOT)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, expected)
    assert not torch.equal(found, says(base))


def test_several_adapters_answer_as_their_weighted_sum(base: Base, tmp_path: Path) -> None:
    import torch

    one, two = (store_lora(base, tmp_path / n, seed=i) for i, n in enumerate(("one", "two")))
    rack = Rack(base)
    with teaching(base, rack, teacher=f"{one}+0.5*{two}") as teacher:
        assert {weight for _, weight in teacher.slots} == {0.5, 1.0}
        found = teacher.logits(batch(base))
        rack.activate(teacher.slots)
        assert torch.equal(found, says(base))
    assert teacher.name == f"{one}+0.5*{two}"


def test_another_base_answers_by_itself(base: Base, home: Path) -> None:
    import torch

    wide = add_wide_base(home, name="wide")
    with teaching(base, teacher_base="wide") as teacher:
        assert teacher.name == "wide"
        assert torch.equal(teacher.logits(batch(base)), says(wide, batch(base)))


def test_an_adapter_on_another_base_answers_there(base: Base, home: Path, tmp_path: Path) -> None:
    import torch

    wide = add_wide_base(home, name="wide")
    folder = store_lora(wide, tmp_path / "on-wide", seed=2)
    with teaching(base, teacher_base="wide", teacher=str(folder)) as teacher:
        assert teacher.name == f"{folder} on wide"
        assert not torch.equal(teacher.logits(batch(base)), says(wide, batch(base)))


def test_it_answers_in_eval_mode_whatever_the_student_is_in(home: Path, tmp_path: Path) -> None:
    """GPT-2 has dropout of its own."""
    import torch

    base = add_tiny_base("gpt2", "bf16", home)
    folder = store_lora(base, tmp_path / "teacher", seed=1)
    with teaching(base, teacher=str(folder)) as teacher:
        before = teacher.logits(batch(base))
        base.model.train()
        try:
            assert torch.equal(teacher.logits(batch(base)), before)
            assert all(module.training for module in base.model.modules())
        finally:
            base.model.eval()


def test_it_reads_the_conversation_as_its_adapters_would_have_it(base: Base, stored: str) -> None:
    class Polite:
        """Stands for an adapter that designs a prompt."""

        slot, config = "polite", {}  # type: ignore[var-annotated]

        def messages(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
            return (Message(role="system", content="Be polite."), *messages)

        def activate(self, weight: float = 1.0) -> None: ...

        def deactivate(self) -> None: ...

        def detach(self) -> None: ...

        def parameters(self) -> dict[str, Any]:
            return {}

        def state(self) -> dict[str, Any]:
            return {}

    rack, asked = Rack(base), (Message(role="user", content="hi"),)
    with teaching(base, rack, teacher=stored) as teacher:
        assert teacher.chat.prompt_ids(asked) == base.chat.prompt_ids(asked)
        rack.attached["polite"] = Polite()  # type: ignore[assignment]
        teacher.slots = (*teacher.slots, ("polite", 1.0))
        system = Message(role="system", content="Be polite.")
        assert teacher.chat.prompt_ids(asked) == base.chat.prompt_ids((system, *asked))


# --- what it shares and leaves ----------------------------------------------------------------


def test_on_the_students_base_nothing_is_loaded_twice(base: Base, stored: str) -> None:
    weights = {id(tensor) for tensor in base.model.parameters()}
    with teaching(base, teacher=stored) as teacher:
        assert teacher.rack.base is base
        assert teacher.rack.base.model is base.model
        now = {id(tensor): tensor for tensor in base.model.parameters()}
        added = [tensor for key, tensor in now.items() if key not in weights]
        assert weights <= set(now)
        assert sum(t.numel() for t in added) == sum(
            t.numel() for a in teacher.rack.attached.values() for t in a.state().values()
        )


def test_the_students_base_by_its_name_is_shared_too(base: Base, stored: str) -> None:
    with teaching(base, teacher=stored, teacher_base=base.spec.name) as teacher:
        assert teacher.rack.base is base


def test_the_student_is_heard_and_trained_as_before(base: Base, stored: str) -> None:
    import torch

    rack = Rack(base)
    with teaching(base, rack, teacher=stored) as teacher:
        student = attach_student(rack)
        before = says(base)
        tensors = student.parameters()
        for tensor in tensors.values():
            tensor.grad = torch.ones_like(tensor)
        teacher.logits(batch(base))
        assert torch.equal(says(base), before)
        assert all(tensor.requires_grad for tensor in tensors.values())
        assert all(torch.equal(t.grad, torch.ones_like(t)) for t in tensors.values())
        teacher.close()
        assert torch.equal(says(base), before)
        assert all(tensor.requires_grad for tensor in tensors.values())
        assert set(rack.attached) == {SLOT}
        rack.detach(SLOT)


def test_closed_it_leaves_the_base_as_it_was(base: Base, stored: str) -> None:
    before, rack = base_bytes(base.model), Rack(base)
    with teaching(base, rack, teacher=stored) as teacher:
        teacher.logits(batch(base))
    assert rack.attached == {}
    assert base_bytes(base.model) == before
    teacher.close()
    with pytest.raises(UsageError, match="was given back"):
        teacher.logits(batch(base))


def test_an_adapter_that_was_there_before_stays(base: Base, stored: str) -> None:
    rack = Rack(base)
    with teaching(base, rack, teacher=stored) as first:
        slots = dict(first.slots)
        with teaching(base, rack, teacher=stored) as second:
            assert dict(second.slots) == slots
        assert set(rack.attached) == set(slots)


def test_a_teacher_that_comes_after_the_student_leaves_it_heard_and_trained(
    base: Base, stored: str
) -> None:
    import torch

    rack = Rack(base)
    student = attach_student(rack)
    before = says(base)
    with teaching(base, rack, teacher=stored) as teacher:
        assert torch.equal(says(base), before)
        assert all(tensor.requires_grad for tensor in student.parameters().values())
        assert teacher.allowed == ()
    rack.detach(SLOT)


def test_another_base_is_freed_when_it_is_given_back(base: Base, home: Path) -> None:
    import weakref

    add_wide_base(home, name="wide")
    with teaching(base, teacher_base="wide") as teacher:
        model = weakref.ref(teacher.rack.base.model)
        assert model() is not None
        teacher.close()
        assert model() is None


def test_equal_weights_have_an_equal_digest(base: Base, tmp_path: Path) -> None:
    folders = [store_lora(base, tmp_path / str(i), seed=s) for i, s in enumerate((1, 1, 2))]
    digests = []
    for text in (*map(str, folders), f"0.5*{folders[0]}"):
        with teaching(base, teacher=text) as teacher:
            digests.append(teacher.digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_teacher_whose_modules_weigh_differently_is_another_one(
    base: Base, stored: str, tmp_path: Path
) -> None:
    found = []
    for scales in (None, {"layers.0": 0.5}, {"layers.0": 0.5, "mlp": 0.0}):
        member = open_member(stored, read_folder(Path(stored)), scales=scales or {})
        pinned = PinnedComposition(
            base=member.folder.manifest.base,
            terms=(PinnedTerm(ref=stored, weight=1.0, sha256=member.sha256, scales=scales),),
        )
        (tmp_path / "half.toml").write_bytes(encode_composition(pinned))
        recipe = Recipe(
            base=base.spec.name,
            data="rows",
            trainer="distill",
            teacher=str(tmp_path / "half.toml"),
        )
        named = named_teacher(recipe, base.spec)
        assert named is not None
        assert named.record["adapters"][0].get("scales") == scales
        with teaching(base, teacher=recipe.teacher) as teacher:
            assert teacher.digest == named.digest
            found.append((teacher.digest, teacher.logits(batch(base))))
    assert len({digest for digest, _ in found}) == 3
    assert (found[0][1] - found[1][1]).abs().max() > 1e-3
    assert (found[1][1] - found[2][1]).abs().max() > 1e-3


def test_a_row_beyond_the_teachers_length_is_refused(base: Base, stored: str) -> None:
    with teaching(base, teacher=stored) as teacher:
        asked = batch(base)
        asked["position_ids"] = asked["position_ids"] + 512
        with pytest.raises(DataError, match="which takes 512"):
            teacher.logits(asked)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [None, "tiny-llama-bf16"])
def test_the_student_cannot_teach_itself(named: str | None, base: Base) -> None:
    with pytest.raises(UsageError, match="teacher and student are the same") as caught:
        named_teacher(
            Recipe(base=base.spec.name, data="rows", trainer="distill", teacher_base=named),
            base.spec,
        )
    assert "--teacher-base" in (caught.value.hint or "")


def test_an_adapter_for_another_base_is_refused(base: Base, home: Path, tmp_path: Path) -> None:
    before, wide = base_bytes(base.model), add_wide_base(home, name="wide")
    folder = store_lora(wide, tmp_path / "on-wide", seed=2)
    with pytest.raises(MismatchError, match="was made for wide, but tiny-llama-bf16 is") as caught:
        named_teacher(
            Recipe(base=base.spec.name, data="rows", trainer="distill", teacher=str(folder)),
            base.spec,
        )
    assert "--teacher-base" in (caught.value.hint or "")
    assert base_bytes(base.model) == before


def test_a_teacher_that_does_not_fit_leaves_the_rack_as_it_was(
    base: Base, home: Path, tmp_path: Path
) -> None:
    """Made for a base of this one's name, and of other shapes."""
    wide = add_wide_base(home, name="wide")
    alike = replace(wide, spec=replace(wide.spec, id=base.spec.id))
    folder, rack = store_lora(alike, tmp_path / "alike", seed=2), Rack(base)
    recipe = Recipe(base=base.spec.name, data="rows", trainer="distill", teacher=str(folder))
    with pytest.raises(MismatchError):
        opened(recipe, base, rack)
    assert rack.attached == {}


def test_a_base_that_is_not_here_is_not_found(base: Base) -> None:
    with pytest.raises(NotFoundError, match="no base is called 'wdie'"):
        named_teacher(
            Recipe(base=base.spec.name, data="rows", trainer="distill", teacher_base="wdie"),
            base.spec,
        )
