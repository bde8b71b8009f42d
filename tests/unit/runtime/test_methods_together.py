"""Adapters of every method that stacks, beside each other on one 4-bit base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.compose.members import outline
from adapterhub.compose.plan import make_plan, settle
from adapterhub.domain.engines import ScoreRequest
from adapterhub.domain.evaluation import Message
from adapterhub.domain.manifest import Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.refs import Ref
from adapterhub.errors import CapabilityError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.manifest import encode_manifest
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.runtime.engine import open_engine
from adapterhub.runtime.resolve import Fetched, resolve_subject
from adapterhub.runtime.subjects import attach_subject
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2},
    "prompt_tuning": {"tokens": 3},
    "bottleneck": {"reduction": 8},
    "prompt_design": {"system": "Spell it backwards."},
    "ia3": {},
    "ln_tuning": {},
}


def nowhere(ref: Ref) -> Fetched:
    raise AssertionError(f"{ref} was fetched")


def store(place: Path, base: Base, method: str) -> str:
    """An adapter as training would leave one."""
    from safetensors.torch import save_file

    config = method_of(method).new_config(base.spec, OPTIONS[method])
    adapter = Rack(base).attach_fresh("made", method, config, seed=3)
    shake(adapter, size=0.1)
    folder = place / method
    folder.mkdir()
    record = catalog().methods[method]
    manifest = Manifest(
        method=method, config_version=record.config_version, base=record_of(base.spec)
    )
    (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
    (folder / "adapter_config.json").write_bytes(encode_config(adapter.config))
    if record.tensors:
        save_file(adapter.state(), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    adapter.detach()
    return str(folder)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, home: Path) -> dict[str, str]:
    base = add_tiny_base("llama", "nf4", home, dense=False)
    place = tmp_path_factory.mktemp("shelf")
    return {method: store(place, base, method) for method in OPTIONS}


def asked(**more: Any) -> ScoreRequest:
    return ScoreRequest(messages=(Message(role="user", content="2 + 2"),), answer="4", **more)


def test_adapters_of_every_method_answer_together(shelf: dict[str, str], home: Path) -> None:
    engine = open_engine(add_tiny_base("llama", "nf4", home, dense=False))
    bare = engine.score([asked()])[0].logprobs
    subject = resolve_subject("+".join(shelf.values()), nowhere)
    slots = attach_subject(engine.rack, subject)
    alone = [s.logprobs for s in engine.score([asked(slots=(slot,)) for slot in slots])]
    for method, logprobs in zip(shelf, alone, strict=True):
        assert logprobs != pytest.approx(bare, abs=1e-4), method
    [whole, again] = engine.score([asked(slots=slots), asked(slots=slots)])
    assert whole.logprobs == pytest.approx(again.logprobs, abs=1e-5)
    for left_out in range(len(slots)):
        rest = slots[:left_out] + slots[left_out + 1 :]
        partial = engine.score([asked(slots=rest)])[0].logprobs
        assert partial != pytest.approx(whole.logprobs, abs=1e-5), list(shelf)[left_out]
    assert engine.score([asked()])[0].logprobs == pytest.approx(bare, abs=1e-6)


def test_their_order_means_nothing_but_for_prompts(shelf: dict[str, str], home: Path) -> None:
    engine = open_engine(add_tiny_base("llama", "nf4", home, dense=False))
    slots = attach_subject(engine.rack, resolve_subject("+".join(shelf.values()), nowhere))
    forth, back = engine.score([asked(slots=slots), asked(slots=slots[::-1])])
    assert forth.logprobs == pytest.approx(back.logprobs, abs=1e-4)


def test_they_are_written_down_and_not_merged(shelf: dict[str, str]) -> None:
    members = resolve_subject("+".join(shelf.values()), nowhere).members
    outlines = [outline(member) for member in members]
    linear = catalog().strategies["linear"]
    assert len(settle(outlines, strategy=linear).terms) == len(shelf)
    assert outlines[0].sites
    for method, found in zip(shelf, outlines, strict=True):
        assert (found.unmergeable is None) == (method == "lora"), method
        if found.unmergeable:
            with pytest.raises(CapabilityError, match=f"{method} adapter, cannot be merged"):
                make_plan([outlines[0], found], strategy=linear)


@pytest.mark.parametrize("method", ["prompt_tuning", "prompt_design"])
def test_a_weight_that_means_nothing_is_refused_when_attaching(
    method: str, shelf: dict[str, str], home: Path
) -> None:
    rack = Rack(add_tiny_base("llama", "nf4", home, dense=False))
    subject = resolve_subject(f"{shelf['lora']}+0.5*{shelf[method]}", nowhere)
    with pytest.raises(CapabilityError, match=rf"0.5\*{shelf[method]}: "):
        attach_subject(rack, subject)
