"""What a DoRA does to its base becomes the nearest LoRA, and the error is the one that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.compose.members import Member, open_member
from adapterhub.errors import CapabilityError, UsageError
from adapterhub.hub.folder import read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing import plain
from adapterhub.testing.practice import shake, train
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.flatten import flatten
from tests.plugins.plain_peft import write_folder

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.models


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, home: Path) -> Base:
    return add_tiny_base(request.param, "bf16", home)


@pytest.fixture
def dora(base: Base, tmp_path: Path) -> Member:
    made = method_of("lora")
    adapter = made.attach(base, "t", made.new_config(base.spec, {"rank": 2, "dora": True}))
    shake(adapter)
    train(base, adapter)
    write_folder(adapter, tmp_path / "dora")
    adapter.detach()
    return open_member("acme/dora", read_folder(tmp_path / "dora"))


def answers(base: Base, folder: Path) -> Any:
    rack = Rack(base)
    rack.attach("a", read_folder(folder))
    rack.activate((("a", 1.0),))
    found = plain.logits_of(base.model).float()
    rack.detach("a")
    return found


def test_at_full_rank_it_is_the_same_function(base: Base, dora: Member, tmp_path: Path) -> None:
    made = flatten(dora, base, tmp_path / "plain", rank=256)
    assert made.error < 1e-6
    assert verify_folder(tmp_path / "plain", base=base.spec).ok
    wanted = answers(base, dora.folder.path)
    assert (wanted - plain.logits_of(base.model)).abs().max() > 1e-2
    torch.testing.assert_close(answers(base, tmp_path / "plain"), wanted, rtol=1e-4, atol=1e-4)


def test_the_error_it_says_is_what_is_missing(base: Base, dora: Member, tmp_path: Path) -> None:
    made = flatten(dora, base, tmp_path / "plain", rank=8)
    assert made.rank == 8
    wanted: dict[str, Any] = dict(
        method_of("lora").patches(dora.folder.config or {}, state(dora), base)
    )
    total, missing = 0.0, 0.0
    kept = state(open_member("acme/plain", read_folder(tmp_path / "plain")))
    for held in made.held:
        W = base.sites("linear")[held.module].weight().double()
        patch = wanted[held.module]
        low = patch.scaling * patch.B.double() @ patch.A.double()
        norms = torch.linalg.norm(W + low, dim=1, keepdim=True)
        magnitude = state(dora)[f"base_model.model.{held.module}.lora_magnitude_vector"]
        D = magnitude.double()[:, None] * (W + low) / norms - W
        A, B = (
            kept[f"base_model.model.{held.module}.lora_{part}.weight"].double() for part in "AB"
        )
        left = D - B @ A
        assert held.error == pytest.approx(float(left.norm() / D.norm()), rel=1e-3)
        total += float(D.square().sum())
        missing += float(left.square().sum())
    assert made.error == pytest.approx((missing / total) ** 0.5, rel=1e-3)
    assert 0 < made.error < 1


def state(member: Member) -> dict[str, Any]:
    from safetensors.torch import load_file

    assert member.folder.weights_path is not None
    return dict(load_file(member.folder.weights_path))


def test_a_rank_out_of_range_is_refused(base: Base, dora: Member, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="out of range"):
        flatten(dora, base, tmp_path / "plain", rank=0)


def test_what_is_no_change_of_weights_is_refused(base: Base, tmp_path: Path) -> None:
    made = method_of("ln_tuning")
    adapter = made.attach(base, "n", made.new_config(base.spec, {}))
    shake(adapter)
    write_folder(adapter, tmp_path / "norms")
    adapter.detach()
    source = open_member("acme/norms", read_folder(tmp_path / "norms"))
    with pytest.raises(CapabilityError, match="weights at"):
        flatten(source, base, tmp_path / "plain", rank=4)
