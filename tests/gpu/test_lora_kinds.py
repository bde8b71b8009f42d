"""Every kind of LoRA on the Phi-3 shaped NF4 model: it starts as nothing, trains, is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from adapterhub.domain.recipe import Recipe
from adapterhub.hub.folder import read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing import plain, practice
from adapterhub.train.low_rank import factorize
from adapterhub.train.run import train_adapter

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "orthogonal": {"init": "orthogonal"},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def logits_of(base: Base) -> Any:
    """As plain.logits_of, on the base's own device."""
    ids = torch.randint(8, 200, (2, 12), generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        return base.model(input_ids=ids.to(base.device), use_cache=False).logits.float()


def options(kind: str) -> dict[str, Any]:
    return {"rank": 8, **KINDS[kind]}


@kinds
def test_a_fresh_one_is_nothing_and_leaves_nothing(base: Base, kind: str) -> None:
    before, bare = plain.base_bytes(base.model), logits_of(base)
    lora = method_of("lora")
    adapter = lora.attach(base, "fresh", lora.new_config(base.spec, options(kind)))
    adapter.activate()
    # Around zero, an orthogonal start leaves what rounding in bfloat16 makes of it.
    apart = float((logits_of(base) - bare).norm() / bare.norm())
    assert apart < 1e-2 if kind == "orthogonal" else apart == 0
    adapter.detach()
    assert plain.base_bytes(base.model) == before


@kinds
def test_it_trains_and_is_read_back(base: Base, tmp_path: Path, kind: str) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"say {n}", "completion": f"number {n}"} for n in range(32)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe(base="phi3", data=str(data), steps=6, options=options(kind), learning_rate=1e-3)
    run = train_adapter(recipe, tmp_path / "made", base=base)
    steps = run.outcome.steps
    assert steps[-1].loss < steps[0].loss
    assert verify_folder(tmp_path / "made").ok
    bare, rack = logits_of(base), Rack(base)
    rack.attach("made", read_folder(tmp_path / "made")).activate()
    assert not torch.equal(logits_of(base), bare)
    rack.detach("made")
    assert torch.equal(logits_of(base), bare)


def test_each_row_of_a_batch_has_its_own_weight(base: Base) -> None:
    lora = method_of("lora")
    adapter = lora.attach(base, "rows", lora.new_config(base.spec, {"rank": 8}))
    practice.shake(adapter, size=0.01)
    alone = []
    for row, weight in enumerate((2.0, -0.5)):
        adapter.activate(weight)
        alone.append(logits_of(base)[row])
    adapter.activate([2.0, -0.5])
    mixed = logits_of(base)
    adapter.detach()
    torch.testing.assert_close(mixed, torch.stack(alone), rtol=2e-2, atol=2e-2)


def test_a_difference_is_factorized_where_it_lies() -> None:
    D = torch.randn(3072, 2048, device="cuda") @ torch.randn(2048, 3072, device="cuda")
    found = factorize(D, 32)
    best = torch.linalg.svdvals(D.double())[32:].norm()
    assert (found.A.device.type, len(found.A)) == ("cuda", 32)
    assert abs(found.error / float(best) - 1) < 1e-6
