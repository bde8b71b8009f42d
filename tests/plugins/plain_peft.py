"""What plain PEFT computes with a folder of ours, or makes by itself: the other side of parity."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from adapterhub.domain.manifest import CONFIG_FILE, WEIGHTS_FILE
from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.formats.adapter_config import encode_config
from adapterhub.models.loader import Base
from adapterhub.models.quiet import quiet
from adapterhub.testing import plain


def write_folder(adapter: AttachedAdapter, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_bytes(encode_config(adapter.config))
    save_file(adapter.state(), folder / WEIGHTS_FILE)
    return folder


def answers_of(bare: Any, folder: Path) -> Any:
    """Logits of the model with the folder's adapter, through PEFT alone."""
    from peft import PeftModel

    with quiet():
        model = PeftModel.from_pretrained(bare, str(folder)).eval()
    return plain.logits_of(model)


def made_by_peft(base: Base, config: Any, *, size: float = 0.05) -> tuple[Mapping[str, Any], Any]:
    """(state, logits) of an adapter that PEFT made on a copy of the base and noise has shaken."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    with quiet():
        model = get_peft_model(copy.deepcopy(base.model), config).eval()
    make = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (p for p in model.parameters() if p.requires_grad):
            tensor.add_(torch.randn(tensor.shape, generator=make), alpha=size)
    return get_peft_model_state_dict(model), plain.logits_of(model)
