"""What an adapter did when it was made is known again in any precision, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.manifest import Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.probe import Position, Probe
from adapterhub.formats.manifest import decode_manifest, encode_manifest
from adapterhub.hub.folder import AdapterFolder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.runtime.engine import open_engine
from adapterhub.testing.practice import shake, train
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.trust.effect import Heard, hear
from adapterhub.trust.norms import module_norms
from adapterhub.trust.probe import MIN_COSINE, SAME_MIN_COSINE, Comparison, compare, make_probe

pytestmark = pytest.mark.models

State = Mapping[str, Any]
Config = Mapping[str, Any]
ONE = (("one", 1.0),)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def trained(base: Base, method: str = "lora") -> tuple[Config, State]:
    engine = open_engine(base)
    config = method_of(method).new_config(base.spec, {})
    adapter = engine.rack.attach_fresh("one", method, config, seed=0)
    shake(adapter)
    train(base, adapter)
    state = adapter.state()
    engine.rack.detach("one")
    return config, state


@contextmanager
def heard(base: Base, method: str, config: Config, state: State) -> Iterator[Heard]:
    engine = open_engine(base)
    engine.rack.attached["one"] = method_of(method).attach(base, "one", config, state=state)
    try:
        yield hear(engine, ONE)
    finally:
        engine.rack.detach("one")


def norms(base: Base, method: str, config: Config, state: State) -> dict[str, float]:
    manifest = Manifest(method=method, config_version=1, base=record_of(base.spec))
    return module_norms(AdapterFolder(Path(), manifest, config, None), state)


def probe_of(base: Base, config: Config, state: State, method: str = "lora") -> Probe:
    with heard(base, method, config, state) as said:
        made = make_probe(
            base,
            said,
            adapter="a" * 64,
            norms=norms(base, method, config, state),
            tensors=len(state),
            bound=len(state),
        )
    assert made is not None
    return made


def replayed(
    base: Base, probe: Probe, config: Config, state: State, method: str = "lora"
) -> Comparison:
    with heard(base, method, config, state) as said:
        own = norms(base, method, config, state)
        found = compare(probe, said, own, spec=base.spec, bound=len(state))
    assert found is not None
    return found


@pytest.mark.parametrize("method", ["lora", "ia3", "prompt_tuning", "bottleneck"])
def test_the_same_adapter_on_the_same_base_is_known_again(method: str, home: Path) -> None:
    base = add_tiny_base("llama", "nf4", home)
    config, state = trained(base, method)
    found = replayed(base, probe_of(base, config, state, method), config, state, method)
    assert found.fault == ""
    assert found.cosine > 0.9999
    assert found.strength == pytest.approx(1, abs=1e-3)


def test_the_probe_of_a_dora_is_its_tensors_norms(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    config = method_of("lora").new_config(base.spec, {"dora": True})
    adapter = method_of("lora").attach(base, "one", config, seed=0)
    shake(adapter)
    state = adapter.state()
    adapter.detach()
    probe = probe_of(base, config, state)
    assert probe.norms.keys() == state.keys()
    assert replayed(base, probe, config, state).fault == ""


def test_a_probe_survives_its_file_and_is_small(home: Path) -> None:
    base = add_tiny_base("llama", "nf4", home)
    probe = probe_of(base, *trained(base))
    manifest = Manifest(method="lora", config_version=1, base=record_of(base.spec), probe=probe)
    data = encode_manifest(manifest)
    assert decode_manifest(data) == manifest
    assert encode_manifest(decode_manifest(data)) == data
    assert len(data) < 50_000
    assert max(len(position.tokens) for position in probe.positions) <= 16


def test_storing_the_adapter_in_half_precision_raises_no_alarm(home: Path) -> None:
    import torch

    base = add_tiny_base("llama", "bf16", home)
    config, state = trained(base)
    probe = probe_of(base, config, state)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = {name: tensor.to(dtype).float() for name, tensor in state.items()}
        assert replayed(base, probe, config, rounded).fault == ""


def without_last_layer(config: dict[str, Any], state: State) -> tuple[Config, State]:
    return (
        {**config, "layers_to_transform": [0]},
        {name: tensor for name, tensor in state.items() if ".layers.0." in name},
    )


FAULTS: dict[str, tuple[Callable[[dict[str, Any], State], tuple[Config, State]], str]] = {
    "alpha x100": (lambda c, s: ({**c, "lora_alpha": c["lora_alpha"] * 100}, s), "100 times"),
    "alpha x0.1": (lambda c, s: ({**c, "lora_alpha": c["lora_alpha"] * 0.1}, s), "0.1 times"),
    "rslora": (lambda c, s: ({**c, "use_rslora": True}, s), "scaling were edited"),
    "fewer layers": (without_last_layer, "left out"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_that_was_edited_fails(fault: str, home: Path) -> None:
    change, words = FAULTS[fault]
    base = add_tiny_base("llama", "bf16", home)
    config, state = trained(base)
    probe = probe_of(base, config, state)
    assert words in replayed(base, probe, *change(dict(config), state)).fault


def test_another_base_of_the_same_shape_fails(home: Path) -> None:
    base, other = (add_tiny_base("llama", "bf16", home, name=f"b{s}", seed=s) for s in (0, 1))
    config, state = trained(base)
    found = replayed(other, probe_of(base, config, state), config, state)
    assert "this is another base" in found.fault
    assert found.cosine < 0.5


def test_on_the_weights_it_was_recorded_on_a_little_less_alike_is_a_fault(home: Path) -> None:
    """Rows of a few modules exchanged: every norm is as it was, and so is much of its effect."""
    base = add_tiny_base("llama", "bf16", home)
    config, state = trained(base)
    probe = probe_of(base, config, state)
    mixed = {
        name: tensor.roll(1, dims=0)
        if "v_proj.lora_B" in name or "o_proj.lora_B" in name
        else tensor
        for name, tensor in state.items()
    }
    found = replayed(base, probe, config, mixed)
    assert MIN_COSINE < found.cosine < SAME_MIN_COSINE
    assert found.fault.endswith("on the weights it was recorded on): it was changed")
    elsewhere = replace(probe, environment=replace(probe.environment, base="another copy"))
    assert replayed(base, elsewhere, config, mixed).fault == ""


def test_tensors_that_do_not_reach_the_base_are_counted(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    config, state = trained(base)
    probe = probe_of(base, config, state)
    with heard(base, "lora", config, state) as said:
        found = compare(probe, said, probe.norms, spec=base.spec, bound=len(state) - 1)
    assert found is not None
    assert found.fault.startswith(f"{len(state) - 1} of its tensors reach this base")


def test_a_tokenizer_that_cuts_otherwise_is_named(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    config, state = trained(base)
    probe = probe_of(base, config, state)
    shorter = replace(probe, positions=probe.positions[:-1])
    assert "another tokenizer" in replayed(base, shorter, config, state).fault
    strange = Position(tokens=(10**6,), without=(0.0,), having=(1.0,))
    wider = replace(probe, positions=(*probe.positions[:-1], strange))
    assert "another tokenizer" in replayed(base, wider, config, state).fault


def test_a_probe_of_other_prompts_is_not_compared(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    config, state = trained(base)
    other = replace(probe_of(base, config, state), prompts="0" * 16)
    with heard(base, "lora", config, state) as said:
        assert compare(other, said, other.norms, spec=base.spec) is None


@pytest.mark.parametrize("tokens", [(), (1, 2), (-1,)])
def test_a_position_without_a_logit_for_each_token_is_refused(tokens: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a position needs tokens"):
        Position(tokens=tokens, without=(0.0,), having=(0.0,))
