"""Every test of the kit has a method that fails it: broken here, or in test_conformance_kit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapterhub.domain.method import Method
from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.errors import AdapterhubError
from adapterhub.models.loader import Base
from adapterhub.testing.conformance import MethodConformance
from adapterhub.testing.promises import promises_of
from adapterhub.testing.tiny import add_tiny_base
from tests.plugin_folders import write_plugin
from tests.unit.testing import test_conformance_kit as kit_tests
from tests.unit.testing.test_conformance_kit import (
    Around,
    Check,
    Ground,
    Kit,
    on_base,
    on_dense,
    with_fault,
)

pytestmark = pytest.mark.models

PLACE = kit_tests.PLACE


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def ground(home: Path, tmp_path: Path) -> Ground:
    one, other = (add_tiny_base(*PLACE, home) for _ in range(2))
    return Ground(one, other, home, tmp_path)


class AddsUp(Around):
    """Twice activated, it takes part twice."""

    times = 0

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.times += 1
        assert not isinstance(weight, Sequence | Mapping)
        self.within.activate(self.times * weight)


class StoresMore(Around):
    def state(self) -> dict[str, Any]:
        state = self.within.state()
        return {**state, "more": state[min(state)]}


class NamesAnIdleParameter(Around):
    def __init__(self, base: Base, within: AttachedAdapter) -> None:
        import torch

        super().__init__(base, within)
        self.idle = torch.nn.Parameter(torch.zeros(3), requires_grad=False)

    def parameters(self) -> Mapping[str, Any]:
        return {**self.within.parameters(), "idle": self.idle}


class FallsSilent(Around):
    """Takes no part where numbers are short: under autocast, and on a base in half precision."""

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        import torch

        half = next(self.base.model.parameters()).dtype is torch.bfloat16
        self.within.activate(0.0 if half or torch.is_autocast_enabled("cpu") else weight)


class LiesElsewhere(Around):
    def parameters(self) -> Mapping[str, Any]:
        return {name: tensor.to("meta") for name, tensor in self.within.parameters().items()}


class TakesRowsForOne(Around):
    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.within.activate(weight[0] if isinstance(weight, Sequence) else weight)


class TakesModulesForOne(Around):
    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        self.within.activate(1.0 if isinstance(weight, Mapping) else weight)


class CountsTokensThatAreNotThere(Around):
    virtual_tokens = 3


class StoresNoJson(Kit):
    def configure(self, base: Base, options: Mapping[str, Any]) -> dict[str, Any]:
        config = super().configure(base, options)
        return {**config, "target_modules": tuple(config["target_modules"])}


class TakesAnyOption(Kit):
    def configure(self, base: Base, options: Mapping[str, Any]) -> dict[str, Any]:
        return super().configure(base, {k: v for k, v in options.items() if k != "no_such_option"})


class TrustsItsOptions(Kit):
    options: ClassVar[Mapping[str, Any]] = {"rank": 4}

    def configure(self, base: Base, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"r": options["rank"]}


class TrustsItsConfig(Kit):
    def attach(self, base: Base, slot: str = "one", **more: Any) -> AttachedAdapter:
        config = more.get("config") or self.config(base)
        assert "lora_dropout" in config
        return super().attach(base, slot, **more)


class NamesAnOptionTooMany(Kit):
    @property
    def record(self) -> Method:
        return replace(super().record, options={"rank": "8", "colour": "blue"})


class NamesAnOptionTooFew(Kit):
    options: ClassVar[Mapping[str, Any]] = {"rank": 4}

    @property
    def record(self) -> Method:
        return replace(super().record, options={"alpha": "8"})


NAMED = "test_the_options_its_record_names_are_those_it_takes"
FILES = "test_its_config_survives_its_file"
KINDS = "test_an_option_of_the_wrong_kind_is_refused"
CUT = "test_a_config_that_was_cut_or_edited_is_refused_with_a_reason"
FITS = "test_what_it_stores_is_what_its_config_calls_for"
CHECKS: list[tuple[type[Kit], Check]] = [
    (with_fault(AddsUp), on_base("test_activating_twice_is_activating_once")),
    (with_fault(StoresMore, "ia3"), on_base(FITS)),
    (with_fault(NamesAnIdleParameter), on_base("test_every_parameter_gets_a_gradient")),
    (with_fault(FallsSilent), on_base("test_it_trains_under_autocast")),
    (with_fault(FallsSilent), on_dense("test_it_follows_a_half_precision_base")),
    (
        with_fault(LiesElsewhere),
        lambda kit, ground: kit.test_it_works_on_every_device(PLACE, ground.home, ground.base),
    ),
    (with_fault(TakesRowsForOne, "ln_tuning"), on_base("test_weights_by_row_are_refused")),
    (
        with_fault(TakesModulesForOne, "prompt_tuning"),
        on_base("test_weights_by_module_are_refused"),
    ),
    (
        with_fault(CountsTokensThatAreNotThere),
        on_dense("test_the_tokens_it_puts_before_the_input_are_counted"),
    ),
    (StoresNoJson, on_base(FILES)),
    (TakesAnyOption, on_base("test_an_unknown_option_is_refused")),
    (TrustsItsOptions, on_base(KINDS)),
    (TrustsItsConfig, on_base(CUT)),
    (NamesAnOptionTooMany, on_base(NAMED)),
    (NamesAnOptionTooFew, on_base(NAMED)),
    (
        kit_tests.SaysTooMuch,
        on_dense("test_its_patches_can_be_read_from_what_is_stored"),
    ),
]
IDS = [kit.__name__ for kit, _ in CHECKS]
# Refused by adapterhub where a record lacks the capability; lora's declares all of them.
REFUSALS: dict[str, Check] = {
    "test_training_it_is_refused": on_base("test_training_it_is_refused"),
    "test_merging_it_is_refused": on_dense("test_merging_it_is_refused"),
    "test_stacking_it_is_refused": lambda kit, ground: kit.test_stacking_it_is_refused(
        ground.base, ground.tmp_path
    ),
    "test_a_quantized_base_is_refused": lambda kit, ground: kit.test_a_quantized_base_is_refused(
        ("llama", "nf4"), add_tiny_base("llama", "nf4", ground.home), ground.home, ground.tmp_path
    ),
}
# The last is broken in the test at the end of this page.
OTHERWISE = {
    "test_it_is_found_by_its_entry_point",
    "test_declaring_it_imports_no_torch",
    "test_merging_into_a_quantized_base_asks_first",
    "test_another_process_makes_and_hears_the_same",
}


@pytest.mark.parametrize(("kit", "check"), CHECKS, ids=IDS)
def test_a_broken_promise_is_noticed(kit: type[Kit], check: Check, ground: Ground) -> None:
    with pytest.raises((AssertionError, AdapterhubError, pytest.fail.Exception)):
        check(kit(), ground)


@pytest.mark.parametrize(("kit", "check"), CHECKS, ids=IDS)
def test_the_same_check_passes_without_the_fault(
    kit: type[Kit], check: Check, ground: Ground
) -> None:
    class Sound(Kit):
        method = kit.method
        options = kit.options

    check(Sound(), ground)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_that_does_not_come_is_noticed(name: str, ground: Ground) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        REFUSALS[name](Kit(), ground)


def test_every_test_of_the_kit_has_something_that_fails_it() -> None:
    pages = [Path(__file__), Path(kit_tests.__file__)]
    said = "".join(page.read_text("utf-8") for page in pages)
    names = {name for name, _ in promises_of(MethodConformance)}
    assert names >= OTHERWISE
    assert [name for name in names if name not in said] == []


HASHED = '''
from adapterhub.plugin import Capability, Method, hookimpl

@hookimpl
def adapterhub_methods():
    return [Method(name="hashed", summary="", target="hashed:Hashed", reference="",
                   config_version=1, capabilities=frozenset({Capability.TRAIN}))]

class Hashed:
    """A LoRA whose start is drawn from a hash."""

    def __init__(self):
        from adapterhub_plugins.peft.lora import Lora
        self.lora = Lora()

    def new_config(self, base, options):
        return self.lora.new_config(base, options)

    def attach(self, base, slot, config, *, state=None, seed=0):
        seed = hash(f"hashed {seed}") % 2**31 if FAULTY else seed
        return self.lora.attach(base, slot, config, state=state, seed=seed)

    def patches(self, config, state, base=None):
        return self.lora.patches(config, state, base)
'''
PROMISED = """
from adapterhub.testing import MethodConformance

class TestHashed(MethodConformance):
    method = "hashed"
"""


# Two processes, each of which imports torch.
@pytest.mark.long
@pytest.mark.parametrize("faulty", [True, False])
def test_a_start_that_differs_in_each_process_is_noticed(tmp_path: Path, faulty: bool) -> None:
    site = write_plugin(tmp_path / "site", "hashed", f"FAULTY = {faulty}\n{HASHED}")
    (tmp_path / "test_hashed.py").write_text(PROMISED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    name = "another_process_makes_and_hears_the_same"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(tmp_path / "pytest.ini")]
    done = subprocess.run(
        [sys.executable, *words, "-k", name, str(tmp_path / "test_hashed.py")],
        env=paths_with(site),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode == 1) == faulty, done.stdout
    assert ("makes another adapter in another process" in done.stdout) == faulty


def paths_with(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
