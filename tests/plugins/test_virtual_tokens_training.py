"""Virtual tokens learn on any base, and what was learnt loads into plain peft."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.models.loader import Base
from adapterhub.models.quiet import quiet
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain, practice
from tests.virtual_tokens import (
    METHODS,
    Make,
    apart,
    attach,
    bases,
    gradients,
    logits,
    padded,
    recompute,
)

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return bases(tmp_path_factory.mktemp("home"))


@pytest.fixture
def llama(make: Make) -> Base:
    return make("llama", "bf16")


# --- training -------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(make: Make, method: str, *, checkpointing: bool) -> None:
    base = make("llama", "nf4")
    adapter = attach(base, method)
    if checkpointing:
        recompute(base)
    outcome = practice.train(base, adapter, steps=12)
    assert outcome.steps[-1].loss < 0.95 * outcome.steps[0].loss


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_recomputing_the_activations_changes_no_gradient(
    make: Make, method: str, family: str
) -> None:
    base = make(family, "bf16")
    adapter = attach(base, method)
    for module in base.model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    kept = gradients(base, adapter)
    recompute(base)
    assert gradients(base, adapter).keys() == kept.keys()
    for name, gradient in gradients(base, adapter).items():
        assert apart(gradient, kept[name]) < 1e-4, name


def test_a_pass_between_forward_and_backward_changes_no_gradient(llama: Base) -> None:
    """As when a teacher answers on the same base, with the student's tokens out of the way."""
    adapter = attach(llama, "prompt_tuning")
    kept = gradients(llama, adapter)
    recompute(llama)

    def teach() -> None:
        adapter.deactivate()
        plain.logits_of(llama.model)
        adapter.activate()

    found = gradients(llama, adapter, between=teach)
    assert apart(found["prompt_embeddings"], kept["prompt_embeddings"]) < 1e-4


def test_a_stored_prompt_goes_on_training(llama: Base) -> None:
    first = attach(llama, "p_tuning", "one")
    state, config = first.state(), first.config
    first.detach()
    again = method_of("p_tuning").attach(llama, "one", config, state=state)
    assert list(again.parameters()) == ["prompt_embeddings"]
    outcome = practice.train(llama, again, steps=8)
    assert outcome.steps[-1].loss < outcome.steps[0].loss
    assert not again.state()["prompt_embeddings"].equal(state["prompt_embeddings"])


# --- plain peft -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("prompt_tuning", {"text": "Say it in Korean."}),
        ("prefix_tuning", {}),
        ("prefix_tuning", {"projection": True, "hidden": 16}),
        ("p_tuning", {"hidden": 16}),
    ],
)
def test_plain_peft_loads_the_folder_and_answers_the_same(
    make: Make, tmp_path: Path, family: str, method: str, options: Mapping[str, Any]
) -> None:
    from peft import PeftModel
    from safetensors.torch import save_file

    from adapterhub.formats.adapter_config import encode_config

    base = make(family, "bf16")
    adapter = attach(base, method, options=options)
    (tmp_path / "adapter_config.json").write_bytes(encode_config(adapter.config))
    save_file(adapter.state(), tmp_path / "adapter_model.safetensors")
    ids, mask, positions = padded()
    adapter.activate()
    found = logits(base, input_ids=ids, attention_mask=mask, position_ids=positions)
    whole = logits(base, input_ids=ids)
    adapter.detach()
    with quiet():
        model = PeftModel.from_pretrained(base.model, str(tmp_path))
    theirs = logits(model, input_ids=ids)[:, -ids.shape[1] :]
    assert apart(whole, theirs) < 1e-5
    if method == "prefix_tuning":  # peft drops the positions of the others, with a warning
        theirs = logits(model, input_ids=ids, attention_mask=mask, position_ids=positions)
        assert apart(found[mask.bool()], theirs[mask.bool()]) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"]
)
def test_what_plain_peft_has_saved_answers_the_same_here(
    make: Make, tmp_path: Path, family: str, kind: str
) -> None:
    import peft
    from safetensors.torch import load_file

    from adapterhub.formats.adapter_config import decode_config

    base = make(family, "bf16")
    ids, _, _ = padded()
    with quiet():
        wanted = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
        model = peft.get_peft_model(base.model, wanted).eval()
        model.save_pretrained(str(tmp_path))
    expected = logits(model, input_ids=ids)[:, -ids.shape[1] :]
    config = decode_config((tmp_path / "adapter_config.json").read_bytes())
    state = load_file(tmp_path / "adapter_model.safetensors")
    method = {"PROMPT": "prompt_tuning", "PREFIX": "prefix_tuning", "P": "p_tuning"}[
        config["peft_type"].partition("_")[0]
    ]
    fresh = make(family, "bf16")
    method_of(method).attach(fresh, "one", config, state=state).activate()
    assert apart(logits(fresh, input_ids=ids), expected) < 1e-5
