"""Tiny llamas of another width or tokenizer than other tiny bases, and adapters to learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapterhub.domain.quantization import scheme_by_name
from adapterhub.formats.adapter_config import encode_config
from adapterhub.models.bases import add_base, base_folder, find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import (
    EOS,
    PAD,
    VOCABULARY,
    temporary_home,
    tiny_model,
    write_tokenizer,
)

MERGES = ("b l", "h e", "l l", "bl u", "ll o")


def add_wide_base(
    home: Path,
    *,
    name: str,
    merges: tuple[str, ...] = (),
    heads: int = VOCABULARY,
    hidden: int = 96,
) -> Base:
    """A llama of `hidden` units and `heads` logits, whose tokenizer joins letters by `merges`."""
    with temporary_home(home):
        if not base_folder(name).is_dir():
            source = home / "sources" / name
            _write(source, merges=merges, heads=heads, hidden=hidden)
            add_base(name, str(source), scheme_by_name("bf16"))
        return load_base(find_base(name), device="cpu")


def _write(folder: Path, *, merges: tuple[str, ...], heads: int, hidden: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from adapterhub.models.quiet import quiet

    write_tokenizer(folder)
    file = folder / "tokenizer.json"
    spec: dict[str, Any] = json.loads(file.read_text())
    vocabulary = spec["model"]["vocab"]
    vocabulary |= {merge.replace(" ", ""): len(vocabulary) + i for i, merge in enumerate(merges)}
    spec["model"]["merges"] = list(merges)
    file.write_text(json.dumps(spec))
    config = tiny_model("llama").config
    config.update({"hidden_size": hidden, "head_dim": hidden // 4, "vocab_size": heads})
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.generation_config.eos_token_id = EOS
        model.generation_config.pad_token_id = PAD
        model.save_pretrained(folder)


def store_lora(base: Base, folder: Path, *, seed: int, rank: int = 4) -> Path:
    """A LoRA of some effect, as plain PEFT stores it."""
    from safetensors.torch import save_file

    config = method_of("lora").new_config(base.spec, {"rank": rank})
    rack = Rack(base)
    adapter = rack.attach_fresh(f"made{seed}", "lora", config, seed=seed)
    shake(adapter, seed=seed, size=0.1)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    save_file(adapter.state(), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    rack.detach(f"made{seed}")
    return folder
