"""The conformance kit notices a method that breaks a promise.

Each fault is LoRA with one thing wrong, and is held to the one test that should see it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.method import Capability
from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.errors import MismatchError
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.testing.conformance import MethodConformance
from adapterhub.testing.practice import shake
from adapterhub.testing.promises import promises_of, skips
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

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
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
    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
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

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
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


class GivesAllRowsTheFirstWeight(Around):
    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.within.activate(weight[0] if isinstance(weight, Sequence) else weight)


class GivesAllModulesTheLargestWeight(Around):
    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.within.activate(max(weight.values()) if isinstance(weight, Mapping) else weight)


class KeepsHalfPrecision(Around):
    def __init__(self, base: Base, within: AttachedAdapter) -> None:
        super().__init__(base, within)
        for tensor in within.parameters().values():
            tensor.data = tensor.data.bfloat16()


class ForgetsWhileDecoding(Around):
    """Right for whole passes, and gone as soon as a token comes alone."""

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.within.activate(weight)
        self.base.model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _: Any, args: Any, inputs: Mapping[str, Any]) -> None:
        if inputs["input_ids"].shape[1] == 1:
            self.within.deactivate()
        else:
            self.within.activate()


class CountsItsCalls(Around):
    """What it computes depends on how often it was asked, as a recomputation shows."""

    calls = 0

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.within.activate(weight)
        for site in self.base.sites("mlp").values():
            site.add_to_output(self._more)

    def _more(self, x: Any, y: Any) -> Any:
        self.calls += 1
        return 0.01 * self.calls * y


class LeavesAHook(Around):
    def detach(self) -> None:
        site = next(iter(self.base.sites("mlp").values()))
        site.add_to_output(lambda x, y: 1e-3 * y)
        self.within.detach()


class FeedsOnOthers(Around):
    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.base.sequential = True
        self.within.activate(weight)


class TrainsTheOther(Around):
    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.within.activate(weight)
        for name, tensor in self.base.model.named_parameters():
            if ".two." in name:
                tensor.data.add_(1e-3)


class Kit(MethodConformance):
    method = "lora"
    fault: type[Around] = Around

    def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
        return self.fault(base, super().attach(base, slot, **more))


class IgnoresItsSeed(Kit):
    def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
        return super().attach(base, slot, **{**more, "seed": 0})


class DrawsAnew(Kit):
    made = 0

    def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
        self.made += 1
        return super().attach(base, slot, **{**more, "seed": self.made})


class DropsUnknownKeys(Kit):
    def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
        config = dict(more.pop("config", None) or self.config(base))
        config.pop("no_such_key", None)
        return super().attach(base, slot, config=config, **more)


class TakesASlotTwice(Kit):
    def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
        taken = base.shared.setdefault("taken", [])
        taken.append(slot)
        return super().attach(base, f"{slot}{len(taken)}", **more)


class LoadsWhatItCan(Kit):
    """A state that does not fit is taken as far as it goes."""

    def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
        more.pop("state", None)
        return super().attach(base, slot, **more)


class SaysTooMuch(Kit):
    def patches(self, base: Base, adapter: AttachedAdapter) -> list[tuple[str, Any]]:
        return [
            (name, replace(patch, scaling=1.001 * patch.scaling))
            for name, patch in super().patches(base, adapter)
        ]


class ForgetsASite(Kit):
    def patches(self, base: Base, adapter: AttachedAdapter) -> list[tuple[str, Any]]:
        return super().patches(base, adapter)[1:]


def with_fault(found: type[Around], of: str = "lora") -> type[Kit]:
    class Faulty(Kit):
        method = of
        fault = found

    Faulty.__name__ = found.__name__
    return Faulty


@dataclass(frozen=True)
class Ground:
    """What a test of the kit may ask for."""

    base: Base
    dense: Base
    home: Path
    tmp_path: Path


Check = Callable[[Kit, Ground], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def ground(home: Path, tmp_path: Path) -> Ground:
    one, other = (add_tiny_base(*PLACE, home) for _ in range(2))
    return Ground(one, other, home, tmp_path)


def on_base(test: str) -> Check:
    return lambda kit, ground: getattr(kit, test)(ground.base)


def on_dense(test: str) -> Check:
    return lambda kit, ground: getattr(kit, test)(ground.dense)


def on_both(test: str, *more: Any) -> Check:
    return lambda kit, ground: getattr(kit, test)(ground.base, ground.dense, *more)


SUM = "test_two_adapters_answer_as_the_sum_of_their_patches"
SCALES = on_both("test_its_weight_scales_its_patches", 2.0)
DETACHED = on_base("test_detaching_leaves_the_base_as_it_was")
SEEDED = on_base("test_a_seed_decides_its_tensors")
CHECKS: list[tuple[type[Kit], Check]] = [
    (with_fault(ChangesAtOnce), on_base("test_a_fresh_adapter_changes_nothing")),
    (with_fault(ActiveAtOnce), on_base("test_an_adapter_takes_no_part_until_it_is_activated")),
    (with_fault(IgnoresItsWeight), SCALES),
    (with_fault(IgnoresItsWeight), on_both(SUM)),
    (with_fault(StaysAttached), DETACHED),
    (with_fault(NudgesTheBase), DETACHED),
    (with_fault(NudgesTheBase), on_base("test_training_leaves_the_base_as_it_was")),
    (with_fault(HidesAParameter), on_base("test_exactly_its_parameters_train")),
    (
        with_fault(StoresRounded),
        lambda kit, ground: kit.test_its_state_survives_a_file(ground.base, ground.tmp_path),
    ),
    (with_fault(TouchesOthers), on_base("test_slots_do_not_disturb_each_other")),
    (
        with_fault(GivesAllRowsTheFirstWeight),
        on_base("test_a_row_of_a_mixed_batch_is_that_row_alone"),
    ),
    (
        with_fault(GivesAllModulesTheLargestWeight),
        on_both("test_a_module_can_have_a_weight_of_its_own"),
    ),
    (
        with_fault(KeepsHalfPrecision),
        on_base("test_its_parameters_are_float32_and_where_the_base_is"),
    ),
    (
        with_fault(ForgetsWhileDecoding),
        on_base("test_generating_with_a_cache_answers_as_whole_passes"),
    ),
    (
        with_fault(CountsItsCalls),
        on_base("test_recomputing_activations_leaves_its_gradients_alone"),
    ),
    (with_fault(LeavesAHook), on_base("test_adapters_leave_in_every_order")),
    (with_fault(LeavesAHook), DETACHED),
    (with_fault(FeedsOnOthers, "ia3"), on_both(SUM)),
    (
        with_fault(TrainsTheOther),
        on_base("test_another_adapter_that_is_active_does_not_train_with_it"),
    ),
    (IgnoresItsSeed, SEEDED),
    (DrawsAnew, SEEDED),
    (DropsUnknownKeys, on_base("test_a_config_with_an_unknown_key_is_refused")),
    (TakesASlotTwice, on_base("test_a_taken_slot_is_refused")),
    (
        LoadsWhatItCan,
        lambda kit, ground: kit.test_a_state_that_does_not_fit_is_refused_whole(
            ground.base, lambda state: state.pop(min(state))
        ),
    ),
    (SaysTooMuch, on_dense("test_its_patches_are_what_it_does")),
    (
        ForgetsASite,
        lambda kit, ground: kit.test_merged_it_answers_as_attached(
            PLACE, ground.base, ground.dense, 1.0
        ),
    ),
    (ForgetsASite, on_both("test_beside_another_method_it_answers_as_the_sum")),
]
IDS = [kit.__name__ for kit, _ in CHECKS]


@pytest.mark.parametrize(("kit", "check"), CHECKS, ids=IDS)
def test_a_broken_promise_is_noticed(kit: type[Kit], check: Check, ground: Ground) -> None:
    with pytest.raises((AssertionError, MismatchError, pytest.fail.Exception)):
        check(kit(), ground)


@pytest.mark.parametrize(("kit", "check"), CHECKS, ids=IDS)
def test_the_same_check_passes_without_the_fault(
    kit: type[Kit], check: Check, ground: Ground
) -> None:
    class Sound(Kit):
        method = kit.method
        seeded = kit.method == "lora"

    check(Sound(), ground)


def test_what_is_declared_decides_what_is_skipped() -> None:
    lora, full = catalog().methods["lora"], catalog().methods["full"]
    assert skips(MethodConformance, lora)["test_merging_it_is_refused"] == "lora declares MERGE"
    assert "test_merging_it_is_refused" not in skips(
        MethodConformance, replace(lora, capabilities=frozenset())
    )
    assert "test_a_quantized_base_is_refused" not in skips(MethodConformance, full)
    bare = skips(MethodConformance, replace(lora, capabilities=frozenset(), tensors=False))
    assert bare["test_every_parameter_gets_a_gradient"] == "lora does not declare TRAIN"
    assert bare["test_its_parameters_are_float32_and_where_the_base_is"] == (
        "lora declares no tensors"
    )


def test_every_test_of_a_capability_has_its_opposite() -> None:
    promises = [promise for _, promise in promises_of(MethodConformance)]
    needed = {promise.needs for promise in promises if promise.needs}
    lacking = {promise.lacks for promise in promises if promise.lacks}
    # A method may start as an identity without saying so; nothing can be refused there.
    assert needed - lacking == {Capability.IDENTITY_START}
    assert lacking - needed == {Capability.QUANTIZED_BASE}


def test_asking_for_the_kit_brings_torch_and_importing_it_does_not() -> None:
    code = (
        "import sys, adapterhub.testing as kit; "
        "assert not {'torch', 'pytest'} & set(sys.modules); "
        "assert all(getattr(kit, name) for name in kit.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
