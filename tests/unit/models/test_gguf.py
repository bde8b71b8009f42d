"""A base from a GGUF file: llama.cpp's names and row order undone, and the file remembered."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import FormatError, NotFoundError
from adapterhub.models.bases import add_base
from adapterhub.models.loader import load_base
from adapterhub.testing import tiny
from adapterhub.testing.plain import logits_of

pytestmark = pytest.mark.models


def write_gguf(path: Path) -> Path:
    """The tiny llama as llama.cpp would store it: Q8_0 matrices, float32 norms."""
    import gguf

    model = tiny.tiny_model("llama")
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, model.config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        for leaf, heads in (("q_proj", 4), ("k_proj", 2)):
            if leaf in name:
                values = _interleave(values, heads)
        stored = names.get_name(name, try_suffixes=(".weight",))
        if values.ndim == 1:
            writer.add_tensor(stored, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stored, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: Any, config: Any) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    # The format wants a merge, and so a token for it: instead of byte 255, which no text has.
    letters = ["th" if letter == "ÿ" else letter for letter in sorted(ByteLevel.alphabet())]
    writer.add_token_list([*tiny.SPECIAL, *letters])
    writer.add_token_types([3] * len(tiny.SPECIAL) + [1] * 256)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tiny.BOS)
    writer.add_eos_token_id(tiny.EOS)
    writer.add_pad_token_id(tiny.PAD)
    writer.add_chat_template(tiny.TEMPLATE)


def _interleave(weight: Any, heads: int) -> Any:
    """llama.cpp turns pairs of neighbours where transformers turns the two halves of a head."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def test_it_says_what_the_model_in_the_file_says(own_home: Path, tmp_path: Path) -> None:
    spec = add_base("mine", str(write_gguf(tmp_path / "tiny.gguf")), scheme_by_name("bf16"))
    found = logits_of(load_base(spec, device="cpu").model)
    expected = logits_of(tiny.tiny_model("llama"))
    assert (found - expected).norm() / expected.norm() < 0.03


def test_it_remembers_the_file_by_its_bytes(own_home: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    spec = add_base("mine", str(file), scheme_by_name("nf4"))
    assert (spec.id, spec.revision) == ("tiny", f"sha256:{digest}")
    assert spec.fingerprint.content == digest
    assert spec.family == "llama"


@pytest.mark.parametrize(("scheme", "twice"), [("nf4", True), ("bf16", False)])
def test_it_says_when_weights_are_quantized_twice(
    scheme: str, twice: bool, own_home: Path, tmp_path: Path
) -> None:
    spec = add_base("mine", str(write_gguf(tmp_path / "tiny.gguf")), scheme_by_name(scheme))
    assert ("Q8_0" in (spec.note or "")) is twice


def test_its_tokenizer_reads_and_writes_every_byte(own_home: Path, tmp_path: Path) -> None:
    spec = add_base("mine", str(write_gguf(tmp_path / "tiny.gguf")), scheme_by_name("bf16"))
    base = load_base(spec, device="cpu")
    assert base.tokenizer.chat_template == tiny.TEMPLATE
    ids = base.tokenizer("안녕 spider", add_special_tokens=False).input_ids
    assert base.tokenizer.decode(ids) == "안녕 spider"


def test_a_file_that_is_not_there_is_named(own_home: Path) -> None:
    with pytest.raises(NotFoundError, match=r"missing\.gguf"):
        add_base("mine", "missing.gguf", scheme_by_name("bf16"))


@pytest.mark.parametrize("keep", [0, 20, 2000, -4000])
def test_a_file_that_was_cut_short_is_named(keep: int, own_home: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"tiny\.gguf is not a GGUF file that can be read"):
        add_base("mine", str(file), scheme_by_name("bf16"))


def test_a_file_of_something_else_is_named(own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\1" * 200)
    with pytest.raises(FormatError, match=r"other\.gguf"):
        add_base("mine", str(tmp_path / "other.gguf"), scheme_by_name("bf16"))
