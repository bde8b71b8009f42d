"""The conformance kit notices a method that breaks a promise.

Each fault is LoRA with one thing wrong, and is held to the one test that should see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.errors import MismatchError
from adapterhub.models.loader import Base
from adapterhub.testing.conformance import MethodConformance
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

PLACE = ("llama", "bf16")


class Around:
    """An adapter that does as the one within; the faults below differ in one place."""

    def __init__(self, base: Base, within: AttachedAdapter) -> None:
        self.base, self.within, self.slot = base, within, within.slot
        self.config = within.config

    def parameters(self) -> Mapping[str, Any]:
        return self.within.parameters()

    def state(self) -> dict[str, Any]:
        return self.within.state()

    def activate(self, weight: float | Sequence[float] = 1.0) -> None:
        self.within.activate(weight)

    def deactivate(self) -> None:
        self.within.deactivate()

    def detach(self) -> None:
        self.within.detach()


class ChangesAtOnce(Around):
    def __init__(self, base: Base, within: AttachedAdapter) -> None:
        super().__init__(base, within)
        shake(within)


class ActiveAtOnce(Around):
    def __init__(self, base: Base, within: AttachedAdapter) -> None:
        super().__init__(base, within)
        within.activate()


class IgnoresItsWeight(Around):
    def activate(self, weight: float | Sequence[float] = 1.0) -> None:
        self.within.activate()


class StaysAttached(Around):
    def detach(self) -> None:
        self.within.deactivate()


class NudgesTheBase(Around):
    def detach(self) -> None:
        self.within.detach()
        self.base.model.get_input_embeddings().weight.data[0, 0] += 1e-6


class HidesAParameter(Around):
    def parameters(self) -> Mapping[str, Any]:
        return dict(list(self.within.parameters().items())[:-1])

    def activate(self, weight: float | Sequence[float] = 1.0) -> None:
        self.within.activate(weight)
        for tensor in self.within.parameters().values():
            tensor.requires_grad_(True)


class StoresRounded(Around):
    def state(self) -> dict[str, Any]:
        return {name: tensor.bfloat16() for name, tensor in self.within.state().items()}


class TouchesOthers(Around):
    def deactivate(self) -> None:
        self.within.deactivate()
        for module in self.base.model.modules():
            if hasattr(module, "lora_B"):
                for entry in module.lora_B.values():
                    entry.weight.data.mul_(0.5)


def kit_with(fault: type[Around]) -> MethodConformance:
    class Kit(MethodConformance):
        method = "lora"

        def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
            return fault(base, super().attach(base, slot, **more))

    return Kit()


Check = Callable[[MethodConformance, Base, Path], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


CHECKS: list[tuple[type[Around], Check]] = [
    (ChangesAtOnce, lambda kit, base, _: kit.test_a_fresh_adapter_changes_nothing(base)),
    (
        ActiveAtOnce,
        lambda kit, base, _: kit.test_an_adapter_takes_no_part_until_it_is_activated(base),
    ),
    (
        IgnoresItsWeight,
        lambda kit, base, home: kit.test_its_weight_scales_its_patches(PLACE, home, base, 2.0),
    ),
    (
        IgnoresItsWeight,
        lambda kit, base, home: kit.test_two_adapters_answer_as_the_sum_of_their_patches(
            PLACE, home, base
        ),
    ),
    (StaysAttached, lambda kit, base, _: kit.test_detaching_leaves_the_base_as_it_was(base)),
    (NudgesTheBase, lambda kit, base, _: kit.test_detaching_leaves_the_base_as_it_was(base)),
    (NudgesTheBase, lambda kit, base, _: kit.test_training_leaves_the_base_as_it_was(base)),
    (HidesAParameter, lambda kit, base, _: kit.test_exactly_its_parameters_train(base)),
    (StoresRounded, lambda kit, base, home: kit.test_its_state_survives_a_file(base, home)),
    (TouchesOthers, lambda kit, base, _: kit.test_slots_do_not_disturb_each_other(base)),
]
IDS = [fault.__name__ for fault, _ in CHECKS]


@pytest.mark.parametrize(("fault", "check"), CHECKS, ids=IDS)
def test_a_broken_promise_is_noticed(fault: type[Around], check: Check, home: Path) -> None:
    base = add_tiny_base(*PLACE, home)
    with pytest.raises((AssertionError, MismatchError)):
        check(kit_with(fault), base, home)


@pytest.mark.parametrize(("fault", "check"), CHECKS, ids=IDS)
def test_the_same_check_passes_without_the_fault(
    fault: type[Around], check: Check, home: Path, tmp_path: Path
) -> None:
    check(kit_with(Around), add_tiny_base(*PLACE, home), tmp_path)
