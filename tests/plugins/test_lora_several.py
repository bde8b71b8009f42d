"""Several slots on one base, and other methods' hooks beside them: none disturbs another."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from adapterhub.models.loader import Base
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from adapterhub_plugins.peft.lora import AttachedLora, Lora  # noqa: E402

pytestmark = pytest.mark.models

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"rank": 4},
    "dora": {"rank": 2, "dora": True, "targets": "attention"},
    "pissa": {"rank": 2, "init": "pissa", "layers": "1"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def shaken(base: Base, slot: str, options: dict[str, Any], *, seed: int = 0) -> AttachedLora:
    adapter = Lora().attach(base, slot, Lora().new_config(base.spec, options), seed=seed)
    practice.shake(adapter, seed=seed)
    return adapter


@pytest.mark.parametrize("options", [KINDS["plain"], KINDS["pissa"]], ids=["plain", "pissa"])
@pytest.mark.parametrize(
    ("family", "scheme"), [("llama", "bf16"), ("gpt2", "bf16"), ("phi3", "nf4"), ("gpt2", "nf4")]
)
def test_each_row_of_a_batch_has_its_own_weight(
    home: Path, family: str, scheme: str, options: dict[str, Any]
) -> None:
    base = add_tiny_base(family, scheme, home, dense=False)
    adapter = shaken(base, "one", options)
    alone = []
    for row, weight in enumerate((2.0, -0.5)):
        adapter.activate(weight)
        alone.append(plain.logits_of(base.model)[row])
    adapter.activate([2.0, -0.5])
    torch.testing.assert_close(plain.logits_of(base.model), torch.stack(alone))
    adapter.activate()
    one = plain.logits_of(base.model)
    adapter.activate([1.0, 1.0])
    torch.testing.assert_close(plain.logits_of(base.model), one)


@pytest.mark.parametrize("order", list(permutations(KINDS)), ids="-".join)
def test_every_kind_beside_every_other_works_on_a_base_in_half_precision(
    home: Path, order: tuple[str, ...]
) -> None:
    base = add_tiny_base("llama", "bf16", home)
    base.model.to(torch.bfloat16)
    for kind in order:
        shaken(base, kind, KINDS[kind]).activate()
    together = plain.logits_of(base.model)
    assert together.dtype == torch.bfloat16
    assert torch.isfinite(together).all()


def test_two_slots_share_a_batch_between_them(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    one, two = (shaken(base, slot, KINDS["plain"], seed=i) for i, slot in enumerate("ab"))
    alone = []
    for row, adapter in enumerate((one, two)):
        adapter.activate()
        alone.append(plain.logits_of(base.model)[row])
        adapter.deactivate()
    one.activate([1.0, 0.0])
    two.activate([0.0, 1.0])
    torch.testing.assert_close(plain.logits_of(base.model), torch.stack(alone))


@pytest.mark.parametrize("order", [*permutations((*KINDS, "hook"))][::3], ids="-".join)
def test_slots_and_hooks_leave_in_any_order(home: Path, order: tuple[str, ...]) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=False)
    before, bare = plain.base_bytes(base.model), plain.logits_of(base.model)
    ends: dict[str, Any] = {}
    for kind, options in KINDS.items():
        adapter = shaken(base, kind, options)
        adapter.activate()
        ends[kind] = adapter.detach
    site = base.sites("linear")["model.layers.1.self_attn.q_proj"]
    ends["hook"] = site.add_to_output(lambda _, y: y).remove
    for name in order:
        ends[name]()
    assert plain.base_bytes(base.model) == before
    assert torch.equal(plain.logits_of(base.model), bare)


def test_attaching_and_detaching_leave_the_others_their_part(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    first = shaken(base, "first", KINDS["plain"])
    first.activate()
    for tensor in first.parameters().values():
        tensor.requires_grad_(True)
    alone = plain.logits_of(base.model)
    second = shaken(base, "second", KINDS["dora"])
    assert torch.equal(plain.logits_of(base.model), alone)
    second.activate()
    assert not torch.equal(plain.logits_of(base.model), alone)
    second.detach()
    assert torch.equal(plain.logits_of(base.model), alone)
    assert all(tensor.requires_grad for tensor in first.parameters().values())


def test_taking_part_does_not_decide_what_trains(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    adapter, other = shaken(base, "one", KINDS["plain"]), shaken(base, "two", KINDS["plain"])
    for tensor in adapter.parameters().values():
        tensor.requires_grad_(True)
    other.activate()
    adapter.deactivate()
    adapter.activate()
    trained = {id(p) for p in base.model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in adapter.parameters().values()}


def test_a_slot_forgets_what_kind_it_held(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    stays = shaken(base, "stays", KINDS["plain"])
    expected = shaken(base, "slot", KINDS["plain"], seed=3)
    expected.activate()
    logits = plain.logits_of(base.model)
    expected.detach()
    for kind in ("dora", "pissa"):
        shaken(base, "slot", KINDS[kind]).detach()
    shaken(base, "slot", KINDS["plain"], seed=3).activate()
    assert torch.equal(plain.logits_of(base.model), logits)
    stays.detach()
