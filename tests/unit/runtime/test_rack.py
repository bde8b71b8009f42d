"""Stored adapters on a loaded base, each under a slot of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.engines import Slots
from adapterhub.domain.evaluation import Message
from adapterhub.errors import CapabilityError, FormatError, MismatchError, NotFoundError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.hub.folder import read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.plain import base_bytes, fold, logits_of

pytestmark = pytest.mark.models

Store = Callable[..., Path]
USER = (Message(role="user", content="2 + 2"),)


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


class Noted:
    """An adapter that writes down what is asked of it, and takes the weights 1 to 9 only."""

    def __init__(self, slot: str, notes: list[str]) -> None:
        self.slot, self.notes = slot, notes
        self.config: Mapping[str, Any] = {}
        self.on = False

    def parameters(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def activate(self, weight: Any = 1.0) -> None:
        if not 1 <= weight < 10:
            raise CapabilityError(f"{self.slot} takes no weight {weight}", hint="use 1")
        self.on = True
        self.notes.append(f"+{self.slot}")

    def deactivate(self) -> None:
        if self.on:
            self.notes.append(f"-{self.slot}")
        self.on = False

    def detach(self) -> None:
        self.deactivate()


@pytest.fixture
def noted(base: Base) -> tuple[Rack, list[str]]:
    notes: list[str] = []
    return Rack(base, {slot: Noted(slot, notes) for slot in "abc"}), notes


def ones(slots: str) -> Slots:
    return tuple((slot, 1.0) for slot in slots)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "ab", "+a +b"),
        ("ab", "ab", ""),
        ("ab", "abc", "+c"),
        ("abc", "ab", "-c"),
        ("ab", "ba", "-a -b +b +a"),
        ("abc", "ac", "-b -c +c"),
        ("ab", "", "-a -b"),
    ],
)
def test_slots_are_activated_in_the_order_they_are_named_in(
    noted: tuple[Rack, list[str]], before: str, after: str, expected: str
) -> None:
    rack, notes = noted
    rack.activate(ones(before))
    notes.clear()
    rack.activate(ones(after))
    assert " ".join(notes) == expected


def test_another_weight_is_another_activation(noted: tuple[Rack, list[str]]) -> None:
    rack, notes = noted
    rack.activate((("a", 1.0), ("b", 1.0)))
    notes.clear()
    rack.activate((("a", 1.0), ("b", 2.0)))
    assert notes == ["-b", "+b"]


def test_a_refused_weight_leaves_none_active_and_the_rack_as_good_as_new(
    noted: tuple[Rack, list[str]],
) -> None:
    rack, notes = noted
    rack.activate(ones("a"))
    with pytest.raises(CapabilityError, match="b takes no weight"):
        rack.activate((("a", 1.0), ("c", 1.0), ("b", 0.5)), sequential=True)
    assert not any(adapter.on for adapter in rack.attached.values())  # type: ignore[attr-defined]
    assert not rack.base.sequential
    notes.clear()
    rack.activate(ones("a"))
    assert notes == ["+a"]


def test_trying_a_weight_leaves_the_others_as_they_are(noted: tuple[Rack, list[str]]) -> None:
    rack, notes = noted
    rack.activate(ones("ab"))
    rack.attached["c"].activate()
    notes.clear()
    rack.check_weight("b", 2.0)
    with pytest.raises(CapabilityError):
        rack.check_weight("b", 0.5)
    assert [slot for slot, adapter in rack.attached.items() if adapter.on] == ["a", "c"]  # type: ignore[attr-defined]
    rack.activate(ones("ab"))
    assert notes[-2:] == ["-c", "+b"]


def test_an_adapter_that_somebody_else_activated_is_silenced(
    noted: tuple[Rack, list[str]],
) -> None:
    rack, notes = noted
    rack.attached["c"].activate()
    rack.activate(ones("a"))
    assert notes == ["+c", "-c", "+a"]


def test_a_detached_slot_is_activated_anew_when_it_comes_back(
    noted: tuple[Rack, list[str]],
) -> None:
    rack, notes = noted
    rack.activate(ones("ab"))
    rack.detach("a")
    rack.attached["a"] = Noted("a", notes)
    notes.clear()
    rack.activate(ones("ab"))
    assert notes == ["-b", "+a", "+b"]


def test_the_base_is_sequential_for_as_long_as_it_is_asked_to_be(
    noted: tuple[Rack, list[str]],
) -> None:
    rack, _ = noted
    rack.activate(ones("ab"), sequential=True)
    assert rack.base.sequential
    rack.activate(ones("ab"))
    assert not rack.base.sequential


def test_a_method_without_tensors_is_attached_from_its_config_alone(
    base: Base, tmp_path: Path
) -> None:
    config = method_of("prompt_design").new_config(base.spec, {"system": "S"})
    (tmp_path / "adapter_config.json").write_bytes(encode_config(config))
    rack = Rack(base)
    rack.attach("one", read_folder(tmp_path))
    assert [m.role for m in rack.rewritten(USER, (("one", 1.0),))] == ["system", "user"]
    assert rack.rewritten(USER, ()) == USER


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
