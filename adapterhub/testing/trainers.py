"""The promises a trainer makes, as tests that a plugin inherits.

    class TestContrast(TrainerConformance):
        trainer = "contrast"
        options = {"margin": 0.5}

Set `teacher` in a subclass to have it learn from another one than a tiny base with an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapterhub.domain.method import Trainer
from adapterhub.domain.protocols import AttachedAdapter, Example, Objective, Teacher
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import UsageError
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.runtime.attach import method_of
from adapterhub.testing import practice
from adapterhub.testing.declaring import check_declared
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.data import collate, collate_packed
from adapterhub.train.loop import fit
from adapterhub.train.objective import make_objective


class TrainerConformance:
    """Set `trainer`; `options` are those of `--trainer-option`, `method` is what learns."""

    trainer: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    method: ClassVar[str] = "lora"
    bases: ClassVar[Sequence[str]] = ("llama", "gpt2")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.bases)

    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("home")

    @pytest.fixture
    def base(self, family: str, home: Path) -> Base:
        return add_tiny_base(family, "bf16", home)

    @pytest.fixture
    def objective(self, base: Base, home: Path, family: str) -> Objective:
        teacher = self.teacher(home, family) if self.record.teacher else None
        return self.made(self.options, teacher)

    @property
    def record(self) -> Trainer:
        return catalog().trainers[self.trainer]

    def made(self, options: Mapping[str, Any], teacher: Teacher | None) -> Objective:
        objective: Objective = load_target(self.record.target)(options, teacher=teacher)
        return objective

    def teacher(self, home: Path, family: str) -> Teacher:
        """What it learns from, where its record says that it has a teacher."""
        return practice.TinyTeacher(add_tiny_base(family, "bf16", home))

    def student(self, base: Base) -> AttachedAdapter:
        method = method_of(self.method)
        adapter = method.attach(base, "student", method.new_config(base.spec, {}), seed=0)
        adapter.activate()
        return adapter

    def recipe(self, **more: Any) -> Recipe:
        return Recipe(base="tiny", data="practice", trainer=self.trainer, **more)

    # --- declaring ------------------------------------------------------------------------------

    def test_it_is_found_by_its_entry_point(self) -> None:
        owner = catalog().trainers.entries[self.trainer].owner
        assert any(a.origin == owner and a.problem is None for a in catalog().admissions)

    def test_declaring_it_imports_no_torch(self) -> None:
        check_declared("trainers", self.trainer)

    def test_an_unknown_option_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no_such_option"):
            self.made({**self.options, "no_such_option": 1}, None)

    def test_a_teacher_is_taken_only_by_a_trainer_that_declares_one(self) -> None:
        named = {"teacher": "acme/teacher", "trainer_options": dict(self.options)}
        if self.record.teacher:
            make_objective(self.recipe(**named))
            named.pop("teacher")
        with pytest.raises(UsageError, match="teacher"):
            make_objective(self.recipe(**named))

    # --- learning -------------------------------------------------------------------------------

    def test_a_few_steps_lower_its_loss(self, base: Base, objective: Objective) -> None:
        examples = self.examples(base, objective)
        student = self.student(base)
        before = _mean_loss(objective, base, examples)
        recipe = self.recipe(steps=10, batch_size=len(examples), learning_rate=1e-2)
        fit(recipe, base, student, objective, examples)
        assert _mean_loss(objective, base, examples) < before

    def test_its_loss_is_a_sum_over_its_tokens(self, base: Base, objective: Objective) -> None:
        examples = self.examples(base, objective)
        self.student(base)
        apart = [_loss(objective, base, [example]) for example in examples]
        total, count = _loss(objective, base, examples)
        assert count == sum(tokens for _, tokens in apart) > 0
        expected = sum(loss for loss, _ in apart)
        assert abs(float(total) - expected) < 1e-4 * abs(expected), (
            f"{float(total):.6f} for the batch, {expected:.6f} for its rows"
        )

    def test_packed_and_padded_rows_lose_the_same(self, base: Base, objective: Objective) -> None:
        examples = self.examples(base, objective)
        self.student(base)
        padded, count = _loss(objective, base, examples)
        rows = collate_packed(
            examples, limit=512, pad=base.tokenizer.pad_token_id, device=base.device
        )
        packed, tokens = objective.loss(base.model, rows)
        assert tokens == count
        assert abs(float(packed) - padded) < 1e-4 * abs(padded), (
            f"{float(packed):.6f} packed, {padded:.6f} padded"
        )

    def test_only_answers_count(self, base: Base, objective: Objective) -> None:
        examples = self.examples(base, objective)
        student = self.student(base)
        for tensor in student.parameters().values():
            tensor.requires_grad_(True)
        batch = collate(examples, pad=base.tokenizer.pad_token_id, device=base.device)
        heard = practice.Overheard(base.model)
        objective.loss(heard, batch)[0].backward()
        moved = heard.logits.grad.abs().amax(dim=-1) > 0
        if moved.shape[1] != len(batch["columns"]):
            moved = moved[:, batch["columns"]]
            assert not heard.logits.grad.abs().amax(dim=-1)[:, : int(batch["columns"][0])].any()
        counted = batch["labels"][:, batch["columns"] + 1] != -100
        assert moved.any(), "nothing that the model answers changes the loss"
        assert not (moved & ~counted).any(), "a token that is no answer's changes the loss"

    def test_the_base_gets_no_gradient(self, base: Base, objective: Objective) -> None:
        examples = self.examples(base, objective)
        student = self.student(base)
        own = {id(tensor) for tensor in student.parameters().values()}
        for tensor in student.parameters().values():
            tensor.requires_grad_(True)
        batch = collate(examples, pad=base.tokenizer.pad_token_id, device=base.device)
        objective.loss(base.model, batch)[0].backward()
        strange = [
            name
            for name, tensor in base.model.named_parameters()
            if tensor.grad is not None and id(tensor) not in own
        ]
        assert strange == []

    def test_one_batch_has_one_loss(self, base: Base, objective: Objective) -> None:
        examples = self.examples(base, objective)
        self.student(base)
        first, again = (_loss(objective, base, examples) for _ in range(2))
        assert first == again

    def examples(self, base: Base, objective: Objective) -> list[Example]:
        made = objective.examples(practice.items(), base.chat)
        assert [example.line for example in made] == [line for line, _ in practice.items()]
        assert all(0 < example.answer_start < len(example.ids) for example in made)
        return made


def _loss(objective: Objective, base: Base, examples: Sequence[Example]) -> tuple[float, int]:
    import torch

    batch = collate(examples, pad=base.tokenizer.pad_token_id, device=base.device)
    with torch.no_grad():
        total, count = objective.loss(base.model, batch)
    return float(total), count


def _mean_loss(objective: Objective, base: Base, examples: Sequence[Example]) -> float:
    total, count = _loss(objective, base, examples)
    return total / count
