"""Stored adapters on a loaded base, each under a slot of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterhub.errors import FormatError, MismatchError, NotFoundError
from adapterhub.hub.folder import read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.plain import base_bytes, fold, logits_of

pytestmark = pytest.mark.models

Store = Callable[..., Path]


def test_a_stored_adapter_answers_as_its_patches(base: Base, stored: Store) -> None:
    from safetensors.torch import load_file

    folder = read_folder(stored("one"))
    state = load_file(folder.path / "adapter_model.safetensors")
    expected = logits_of(fold(base.model, method_of("lora").patches(folder.config or {}, state)))
    rack = Rack(base)
    rack.attach("one", folder)
    rack.activate((("one", 1.0),))
    assert (logits_of(base.model) - expected).abs().max() < 1e-4


def test_a_slot_is_filled_once(base: Base, stored: Store) -> None:
    rack, folder = Rack(base), read_folder(stored("one"))
    assert rack.attach("one", folder) is rack.attach("one", folder)


def test_exactly_the_slots_that_were_named_take_part(base: Base, stored: Store) -> None:
    rack = Rack(base)
    alone = {}
    for seed, slot in enumerate(("one", "two")):
        rack.attach(slot, read_folder(stored(slot, seed=seed)))
        rack.activate(((slot, 1.0),))
        alone[slot] = logits_of(base.model)
    rack.activate((("one", 1.0), ("two", 1.0)))
    rack.activate((("one", 1.0),))
    assert (logits_of(base.model) - alone["one"]).abs().max() == 0


def test_an_adapter_for_another_base_leaves_this_one_alone(base: Base, stored: Store) -> None:
    from safetensors.torch import load_file, save_file

    folder = stored("one")
    weights = folder / "adapter_model.safetensors"
    renamed = {k.replace("model.layers", "h"): v for k, v in load_file(weights).items()}
    save_file(renamed, weights)
    before, rack = base_bytes(base.model), Rack(base)
    with pytest.raises(MismatchError, match="none of the adapter's"):
        rack.attach("one", read_folder(folder))
    assert base_bytes(base.model) == before
    assert rack.attached == {}


@pytest.mark.parametrize("targets", [["query_key_value"], ["q_proj", "input_layernorm"]])
def test_an_adapter_for_layers_that_cannot_be_wrapped_leaves_the_base_alone(
    targets: list[str], base: Base, stored: Store
) -> None:
    folder = stored("one")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = targets
    (folder / "adapter_config.json").write_text(json.dumps(config))
    before, rack = base_bytes(base.model), Rack(base)
    with pytest.raises(MismatchError, match="does not fit this base"):
        rack.attach("one", read_folder(folder))
    assert base_bytes(base.model) == before
    assert not hasattr(base.model, "peft_config")
    rack.attach("one", read_folder(stored("two")))


def test_weights_that_are_no_safetensors_are_refused(base: Base, stored: Store) -> None:
    folder = stored("one")
    (folder / "adapter_model.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(FormatError):
        Rack(base).attach("one", read_folder(folder))


def test_a_method_that_nobody_provides_is_named(base: Base, stored: Store) -> None:
    folder = stored("one")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LORRA"}))
    with pytest.raises(NotFoundError, match="lorra") as caught:
        Rack(base).attach("one", read_folder(folder))
    assert caught.value.hint == "did you mean 'lora'?"
