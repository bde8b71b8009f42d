"""A LoRA on the Phi-3 shaped NF4 model: trained, stored, loaded, generating, and plain peft's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from adapterhub.domain.engines import Engine, GenerateRequest, ScoreRequest
from adapterhub.domain.evaluation import Message
from adapterhub.domain.recipe import Recipe
from adapterhub.hub.folder import read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.engine import open_engine
from adapterhub.train.run import Trained, train_adapter

ROWS = [{"prompt": f"say {n}", "completion": f"number {n}"} for n in range(32)]
REQUEST = ScoreRequest(
    messages=(Message(role="user", content="say 5"),), answer="number 5", logits=True
)


@pytest.fixture(scope="module")
def trained(base: Base, home: Path) -> Trained:
    data = home / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    recipe = Recipe(base="phi3", data=str(data), steps=4, options={"rank": 16})
    torch.cuda.reset_peak_memory_stats()
    run = train_adapter(recipe, home / "lora", base=base)
    steps = run.outcome.steps
    print(
        f"{len(steps)} steps, loss {steps[0].loss:.3f} -> {steps[-1].loss:.3f}, peak "
        f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    )
    return run


def logits(engine: Engine, slots: tuple[tuple[str, float], ...]) -> Any:
    request = ScoreRequest(
        messages=REQUEST.messages, answer=REQUEST.answer, slots=slots, logits=True
    )
    return engine.score([request])[0].logits


def test_the_base_holds_four_bit_fused_layers(base: Base) -> None:
    import bitsandbytes as bnb

    layer = base.model.model.layers[0]
    assert isinstance(layer.self_attn.qkv_proj, bnb.nn.Linear4bit)
    assert isinstance(layer.mlp.gate_up_proj, bnb.nn.Linear4bit)
    assert layer.self_attn.qkv_proj.weight.quant_state.nested


def test_training_lowers_the_loss(trained: Trained) -> None:
    steps = trained.outcome.steps
    assert trained.outcome.stopped == "finished"
    assert steps[-1].loss < steps[0].loss


def test_a_reloaded_adapter_gives_equal_logits(base: Base, trained: Trained, home: Path) -> None:
    folder = read_folder(trained.folder)
    first = open_engine(base)
    first.rack.attach("a", folder)
    before, bare = logits(first, (("a", 1.0),)), logits(first, ())
    first.rack.detach("a")
    second = open_engine(base)
    second.rack.attach("b", folder)
    assert torch.equal(before, logits(second, (("b", 1.0),)))
    assert not torch.equal(before, bare)
    second.rack.detach("b")


def test_plain_peft_gives_our_logits(base: Base, trained: Trained) -> None:
    from peft import PeftModel

    engine = open_engine(base)
    engine.rack.attach("a", read_folder(trained.folder))
    ours = logits(engine, (("a", 1.0),))
    engine.rack.detach("a")
    plain = PeftModel.from_pretrained(base.model, trained.folder)
    prompt = base.chat.prompt_ids(REQUEST.messages)
    answer = base.chat.answer_ids(REQUEST.messages, REQUEST.answer)
    ids = torch.tensor([prompt + answer], device="cuda")
    with torch.inference_mode():
        theirs = plain(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().cpu()
    plain.unload()
    assert torch.allclose(ours, theirs, atol=2e-2, rtol=2e-2)


def test_generation_runs_with_and_without(base: Base, trained: Trained) -> None:
    engine = open_engine(base)
    engine.rack.attach("a", read_folder(trained.folder))
    requests = [
        GenerateRequest(messages=REQUEST.messages, slots=slots, max_new_tokens=8)
        for slots in ((), (("a", 1.0),))
    ]
    answers = engine.generate(requests)
    engine.rack.detach("a")
    assert all(0 < len(answer.token_ids) <= 8 for answer in answers)
