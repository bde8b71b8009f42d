"""An adapter must change what its base says, and leave it able to speak."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.errors import NoEffectError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.runtime.engine import ReferenceEngine, open_engine
from adapterhub.testing.practice import shake, train
from adapterhub.testing.tiny import add_tiny_base, temporary_home
from adapterhub.trust.attached import verify_attached
from adapterhub.trust.effect import NOTHING, Effect, check_effect, measure_effect

pytestmark = pytest.mark.models

ONE = (("one", 1.0),)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def config(base: Base) -> dict[str, Any]:
    return method_of("lora").new_config(base.spec, {"rank": 4})


def engine_with(base: Base, prepare: Callable[[Base, AttachedAdapter], Any]) -> ReferenceEngine:
    engine = open_engine(base)
    prepare(base, engine.rack.attach_fresh("one", "lora", config(base), seed=0))
    return engine


def untouched(base: Base, adapter: AttachedAdapter) -> None:
    pass


def poison(base: Base, adapter: AttachedAdapter) -> None:
    """One NaN in the last layer."""
    import torch

    with torch.no_grad():
        adapter.parameters()[max(adapter.parameters())].view(-1)[0] = float("nan")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("scheme", ["bf16", "nf4"])
def test_an_untrained_adapter_is_refused(family: str, scheme: str, home: Path) -> None:
    effect = measure_effect(engine_with(add_tiny_base(family, scheme, home), untouched), ONE)
    assert effect.relative <= NOTHING
    with pytest.raises(NoEffectError, match="acme/a changes nothing"):
        check_effect(effect, "acme/a")


@pytest.mark.parametrize("scheme", ["bf16", "nf4"])
def test_a_trained_adapter_passes(scheme: str, home: Path) -> None:
    effect = measure_effect(engine_with(add_tiny_base("llama", scheme, home), train), ONE)
    check_effect(effect, "acme/a")
    assert effect.relative > 100 * NOTHING
    assert effect.finite


def test_an_adapter_that_breaks_its_base_is_refused(home: Path) -> None:
    effect = measure_effect(engine_with(add_tiny_base("llama", "bf16", home), poison), ONE)
    with pytest.raises(NoEffectError, match="NaN or infinite"):
        check_effect(effect, "acme/a")


def test_twice_the_weight_has_more_effect(home: Path) -> None:
    engine = engine_with(add_tiny_base("llama", "bf16", home), lambda _, adapter: shake(adapter))
    single, double = (measure_effect(engine, (("one", weight),)) for weight in (1.0, 2.0))
    assert double.relative > 1.2 * single.relative
    assert 0 < single.flips <= double.flips <= 1


@pytest.mark.parametrize(
    ("relative", "fine"), [(0.0, False), (NOTHING, False), (2 * NOTHING, True), (0.5, True)]
)
def test_rounding_is_no_effect(relative: float, fine: bool) -> None:
    effect = Effect(relative=relative, flips=0.0, finite=True)
    if fine:
        check_effect(effect, "acme/a")
    else:
        with pytest.raises(NoEffectError):
            check_effect(effect, "acme/a")


def test_the_effect_of_a_designed_prompt_is_measured(home: Path, tmp_path: Path) -> None:
    base = add_tiny_base("llama", "nf4", home)
    made = method_of("prompt_design").new_config(base.spec, {"system": "Answer in Korean."})
    (tmp_path / "adapter_config.json").write_bytes(encode_config(made))
    with temporary_home(home):
        problems, facts = verify_attached(tmp_path, base.spec, device="cpu")
    assert problems == []
    assert facts["effect_relative"] > 0.01


# --- a stored adapter on a base of this machine -----------------------------------------------


def store(folder: Path, base: Base, prepare: Callable[[Base, AttachedAdapter], Any]) -> Path:
    from safetensors.torch import save_file

    adapter = engine_with(base, prepare).rack.attached["one"]
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(encode_config(config(base)))
    save_file(adapter.state(), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("prepare", "problems"),
    [(untouched, ["no-effect"]), (train, []), (poison, ["no-effect"])],
)
def test_a_stored_adapter_is_verified_on_its_base(
    prepare: Callable[[Base, AttachedAdapter], Any],
    problems: list[str],
    home: Path,
    tmp_path: Path,
) -> None:
    base = add_tiny_base("llama", "bf16", home)
    folder = store(tmp_path / "stored", base, prepare)
    with temporary_home(home):
        found, facts = verify_attached(folder, base.spec, device="cpu")
    assert [problem.code for problem in found] == problems
    assert json.loads(json.dumps(facts, allow_nan=False))["effect"]


def test_an_adapter_for_another_base_does_not_fit(home: Path, tmp_path: Path) -> None:
    folder = store(tmp_path / "stored", add_tiny_base("phi3", "bf16", home), train)
    other = add_tiny_base("llama", "bf16", home)
    with temporary_home(home):
        found, _ = verify_attached(folder, other.spec, device="cpu")
    assert [problem.code for problem in found] == ["does-not-fit"]
