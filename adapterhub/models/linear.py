"""Find the linear layers of a model, whatever class holds their weights.

Quantized layers are subclasses of `nn.Linear` in the backends we know; GPT-2 keeps its own
`Conv1D`, whose weight is transposed.
"""

from __future__ import annotations

from typing import Any


def linear_sites(model: Any) -> dict[str, tuple[int, int]]:
    """Module name -> (out, in) of every linear layer but the output head."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    sites: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            sites[name] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):
            sites[name] = (module.weight.shape[1], module.weight.shape[0])
    return sites
