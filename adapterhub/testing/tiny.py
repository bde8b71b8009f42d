"""Tiny bases made in code: a whole transformers folder of a few hundred kilobytes, in a second.

Nothing is downloaded; the same family and seed are the same bytes. They speak nonsense, with every
layer, tokenizer and chat template where a real base has them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.domain.grounds import TINY_FAMILIES
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import UsageError
from adapterhub.hub.home import HOME_VARIABLE

if TYPE_CHECKING:
    from adapterhub.models.loader import Base

FAMILIES = TINY_FAMILIES
CONTEXT = 512
HIDDEN = 64

SPECIAL = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
PAD, BOS, EOS, END = 0, 1, 2, 6
VOCABULARY = len(SPECIAL) + 256

TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def write_tiny(
    family: str, folder: Path, *, seed: int = 0, layers: int = 2, template: str | None = TEMPLATE
) -> Path:
    """Write a base in float32 with a byte-level tokenizer. Raises UsageError for other families."""
    from adapterhub.models.quiet import quiet

    model = tiny_model(family, seed=seed, layers=layers)
    write_tokenizer(folder, template=template)
    model.generation_config.eos_token_id = [EOS, END]
    model.generation_config.pad_token_id = PAD
    with quiet():
        model.save_pretrained(folder)
    return folder


def tiny_model(family: str, *, seed: int = 0, layers: int = 2) -> Any:
    """A transformers model with weights of a useful size: norms differ from one, biases from 0."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if family not in FAMILIES:
        raise UsageError(
            f"there is no tiny {family!r} model", hint=f"families: {', '.join(FAMILIES)}"
        )
    config = AutoConfig.for_model(family, **_shape(family, layers))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def write_tokenizer(folder: Path, *, template: str | None = TEMPLATE, bos: bool = False) -> Path:
    """One token a byte, and seven special ones. With `bos` it begins every sequence with <s>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={t: i for i, t in enumerate((*SPECIAL, *letters))}, merges=[])
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", BOS)]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


@contextmanager
def temporary_home(home: Path) -> Iterator[Path]:
    """Let adapterhub keep its files in `home` for the length of a block."""
    before = os.environ.get(HOME_VARIABLE)
    os.environ[HOME_VARIABLE] = str(home)
    try:
        yield home
    finally:
        if before is None:
            del os.environ[HOME_VARIABLE]
        else:
            os.environ[HOME_VARIABLE] = before


def add_tiny_base(
    family: str,
    scheme: str,
    home: Path,
    *,
    name: str | None = None,
    seed: int = 0,
    dense: bool | None = None,
    device: str = "cpu",
) -> Base:
    """Add a tiny base to `home` as `base add` does, unless it is there, and load it."""
    from adapterhub.models.bases import add_base, base_folder, find_base
    from adapterhub.models.loader import load_base

    name = name or f"tiny-{family}-{scheme}"
    source = home / "sources" / f"{family}-{seed}"
    with temporary_home(home):
        if not base_folder(name).is_dir():
            if not source.is_dir():
                write_tiny(family, source, seed=seed)
            add_base(name, str(source), scheme_by_name(scheme))
        return load_base(find_base(name), device=device, dense=dense)


def _shape(family: str, layers: int) -> dict[str, Any]:
    tokens = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    if family == "gpt2":
        sizes = {"n_embd": HIDDEN, "n_layer": layers, "n_head": 4, "n_positions": CONTEXT}
        return {**sizes, **tokens, "vocab_size": VOCABULARY, "initializer_range": 0.15}
    return {
        **tokens,
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        # About 1/sqrt(hidden): smaller, and a layer would hardly change what passes through it.
        "initializer_range": 0.15,
        # One of the families ties its head to the embedding, as its small real models do.
        "tie_word_embeddings": family == "qwen2",
    }
