"""A fine-tuned model becomes a LoRA: all of it where the rank allows, and never more than is so."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.match import match_base
from adapterhub.errors import (
    AdapterhubError,
    FormatError,
    MismatchError,
    NoEffectError,
    NotFoundError,
    UsageError,
)
from adapterhub.hub.folder import read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.models.bases import find_base
from adapterhub.runtime.attach import Rack
from adapterhub.testing import plain
from adapterhub.testing.tiny import add_tiny_base, temporary_home, tiny_model, write_tiny
from adapterhub.train.extract import extract
from adapterhub.train.low_rank import factorize

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's .base_model_name_or_path:UserWarning"),
]
Q = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tiny bases of the families lie."""
    place = tmp_path_factory.mktemp("models")
    for family in ("llama", "gpt2", "phi3", "qwen2"):
        write_tiny(family, place / family)
    return place


def in_blocks(name: str, tensor: Any) -> bool:
    return tensor.ndim == 2 and (".layers." in name or ".h." in name)


def tune(
    models: Path, family: str, out: Path, which: Callable[[str, Any], bool], **options: Any
) -> Any:
    """A copy of a base with noise on some of its parameters."""
    model = tiny_model(family)
    make = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if which(name, parameter):
                parameter.add_(torch.randn(parameter.shape, generator=make), alpha=0.05)
    model.save_pretrained(out, **options)
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "qwen2"])
def test_at_full_rank_it_says_what_the_tuned_model_says(
    models: Path, tmp_path: Path, family: str
) -> None:
    tuned = tune(models, family, tmp_path / "tuned", in_blocks)
    made = extract(str(models / family), str(tmp_path / "tuned"), tmp_path / "made", rank=512)
    assert made.error < 1e-6
    assert (made.left_out, made.unchanged) == ((), 0)
    assert verify_folder(tmp_path / "made").ok
    model = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path / "made")
    torch.testing.assert_close(plain.logits_of(model), plain.logits_of(tuned), rtol=1e-4, atol=1e-4)


def test_the_error_it_states_is_what_is_missing(models: Path, tmp_path: Path) -> None:
    tuned = tune(models, "llama", tmp_path / "tuned", in_blocks)
    made = extract(str(models / "llama"), str(tmp_path / "tuned"), tmp_path / "made", rank=5)
    base, folder = tiny_model("llama"), read_folder(tmp_path / "made")
    model = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder.path).merge_and_unload()
    wanted, left = 0.0, 0.0
    for held in made.held:
        W, M, T = (
            m.get_submodule(held.module).weight.detach().double() for m in (base, model, tuned)
        )
        own = float(torch.linalg.norm(T - M) / torch.linalg.norm(T - W))
        assert held.error == pytest.approx(own, rel=1e-3)
        best = torch.linalg.svdvals(T - W)
        assert held.error == pytest.approx(float(best[5:].norm() / best.norm()), rel=1e-3)
        assert held.change == pytest.approx(float((T - W).norm() / W.norm()), rel=1e-6)
        wanted += float((T - W).square().sum())
        left += float((T - M).square().sum())
    assert {held.rank for held in made.held} == {5}
    assert made.error == pytest.approx((left / wanted) ** 0.5, rel=1e-3)


def test_a_merged_lora_comes_back_at_its_own_rank(models: Path, tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        weight = model.get_submodule(Q).weight
        # Powers of two, so that the sum is the same in float32.
        weight.copy_((weight * 2**16).round() / 2**16)
        model.save_pretrained(tmp_path / "base")
        B, A = (torch.randint(-4, 5, size).float() / 64 for size in ((64, 3), (3, 64)))
        weight.add_(B @ A)
        model.save_pretrained(tmp_path / "tuned")
    made = extract(str(tmp_path / "base"), str(tmp_path / "tuned"), tmp_path / "made", rank=16)
    [held] = made.held
    assert (held.module, held.rank) == (Q, 3)
    assert held.error < 1e-6
    assert made.unchanged == 13


def test_what_a_lora_cannot_hold_is_named(models: Path, tmp_path: Path) -> None:
    tune(
        models,
        "llama",
        tmp_path / "tuned",
        lambda name, _: name.startswith((Q, "model.embed_tokens", "model.norm", "lm_head")),
    )
    made = extract(str(models / "llama"), str(tmp_path / "tuned"), tmp_path / "made")
    assert [held.module for held in made.held] == [Q]
    assert {left.parameter for left in made.left_out} == {
        "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
    }  # fmt: skip
    assert all(left.change is not None and 0.01 < left.change < 1 for left in made.left_out)


def test_a_layer_outside_the_targets_is_named_as_left_out(models: Path, tmp_path: Path) -> None:
    tune(models, "gpt2", tmp_path / "tuned", in_blocks)
    base, tuned = str(models / "gpt2"), str(tmp_path / "tuned")
    made = extract(base, tuned, tmp_path / "made", targets="c_attn,mlp.c_proj")
    assert {held.module.split(".", 3)[3] for held in made.held} == {"attn.c_attn", "mlp.c_proj"}
    assert {left.parameter.split(".", 3)[3] for left in made.left_out} == {
        "attn.c_proj.weight", "mlp.c_fc.weight"
    }  # fmt: skip
    with pytest.raises(UsageError, match="names no linear layer"):
        extract(base, tuned, tmp_path / "other", targets="q_proj")


def test_a_stored_base_stands_for_the_weights_it_was_made_from(
    models: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    said: list[str] = []
    base = add_tiny_base("llama", "nf4", home, name="small")
    tune(models, "llama", tmp_path / "tuned", in_blocks)
    with temporary_home(home):
        made = extract(
            "small", str(tmp_path / "tuned"), tmp_path / "made", rank=512, say=said.append
        )
        spec = find_base("small")
        assert match_base(made.base, spec).verdict == "same"
        Rack(base).attach("one", read_folder(tmp_path / "made"))
        assert made.error < 1e-6
        [note] = said
        assert note.startswith("comparing with the float weights of ")
        assert "small was stored as nf4" in note
        weights = Path(spec.source) / "model.safetensors"
        kept = weights.read_bytes()
        weights.write_bytes((models / "qwen2" / "model.safetensors").read_bytes())
        with pytest.raises(MismatchError, match="no longer what the base small was made from"):
            extract("small", str(tmp_path / "tuned"), tmp_path / "again")
        weights.write_bytes(kept)
        Path(spec.source).rename(tmp_path / "gone")
        with pytest.raises(NotFoundError, match="are gone"):
            extract("small", str(tmp_path / "tuned"), tmp_path / "again")


def test_shards_are_read_as_one(models: Path, tmp_path: Path) -> None:
    tune(models, "llama", tmp_path / "tuned", in_blocks, max_shard_size="100KB")
    assert len(list((tmp_path / "tuned").glob("*.safetensors"))) > 2
    made = extract(str(models / "llama"), str(tmp_path / "tuned"), tmp_path / "made", rank=512)
    assert (len(made.held), made.error < 1e-6) == (14, True)


def test_a_body_stored_without_its_head_s_prefix_is_understood(
    models: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tune(models, "gpt2", tmp_path / "tuned", in_blocks)
    file = tmp_path / "tuned" / "model.safetensors"
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    made = extract(str(models / "gpt2"), str(tmp_path / "tuned"), tmp_path / "made", rank=512)
    assert made.error < 1e-6


def test_nothing_to_extract_is_an_error(models: Path, tmp_path: Path) -> None:
    base = str(models / "llama")
    with pytest.raises(NoEffectError, match="hold the same weights"):
        extract(base, base, tmp_path / "made")
    tune(models, "llama", tmp_path / "tuned", lambda name, _: "norm" in name)
    with pytest.raises(NoEffectError, match=r"layernorm\.weight and 4 more"):
        extract(base, str(tmp_path / "tuned"), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def lose_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[f"{Q}.weight"]
    save_file(tensors, file)


def break_a_number(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{Q}.weight"][0, 0] = float("nan")
    save_file(tensors, file)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def forget_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def widen(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))


def quantize(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    stated = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": stated}))


@pytest.mark.parametrize(
    ("spoil", "error", "fact"),
    [
        (lose_a_tensor, MismatchError, f"holds no {Q}.weight"),
        (break_a_number, FormatError, "not finite"),
        (cut, FormatError, "not a whole safetensors file"),
        (forget_the_config, UsageError, "not a causal language model"),
        (widen, MismatchError, r"down_proj\.weight is \(64, 128\) in the base and \(64, 96\)"),
        (quantize, UsageError, "is quantized"),
    ],
)
def test_two_models_that_cannot_be_compared_are_refused(
    models: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    error: type[AdapterhubError],
    fact: str,
) -> None:
    tune(models, "llama", tmp_path / "tuned", in_blocks)
    spoil(tmp_path / "tuned")
    with pytest.raises(error, match=fact):
        extract(str(models / "llama"), str(tmp_path / "tuned"), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_another_family_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="a llama model and the tuned one a phi3"):
        extract(str(models / "llama"), str(models / "phi3"), tmp_path / "made")


@pytest.mark.parametrize("rank", [0, -1, 5000])
def test_a_rank_that_no_adapter_has_is_refused(models: Path, tmp_path: Path, rank: int) -> None:
    with pytest.raises(UsageError, match="out of range"):
        extract(str(models / "llama"), str(models / "llama"), tmp_path / "made", rank=rank)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (1100, 1040), (1040, 1100)], ids=str)
def test_factors_are_the_best_of_their_rank(shape: tuple[int, int]) -> None:
    make = torch.Generator().manual_seed(2)
    U, V = (torch.linalg.qr(torch.randn(n, 20, generator=make).double())[0] for n in shape)
    S = 0.7 ** torch.arange(20).double()
    found = factorize(U @ torch.diag(S) @ V.T, 6)
    assert (tuple(found.A.shape), tuple(found.B.shape)) == ((6, shape[1]), (shape[0], 6))
    assert found.error == pytest.approx(float(S[6:].norm()), rel=1e-5)
    assert found.norm == pytest.approx(float(S.norm()), rel=1e-9)
    torch.testing.assert_close(found.A.norm(dim=1), found.B.norm(dim=0))
    assert len(factorize(U @ torch.diag(S) @ V.T, 64).A) == 20
