"""The plain twin of an adapter: its patches folded into float weights, and a base's bytes.

Written from the definition of each patch alone, so that it can be held against any method.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import Any

from adapterhub.domain.patch import Affine, Patch, Weights
from adapterhub.errors import CapabilityError

Patches = Iterable[tuple[str, Patch]]


def fold(model: Any, patches: Patches, *, weight: float = 1.0) -> Any:
    """A float64 copy of a dense model with the patches in its weights, their deltas times `weight`.

    Raises CapabilityError for a patch that is no change of a linear layer's weight.
    """
    import torch

    folded = copy.deepcopy(model).double()
    with torch.no_grad():
        for name, patch in patches:
            _fold_site(folded.get_submodule(name), patch, weight)
    return folded


def foldable(patches: Patches) -> bool:
    """Whether every patch is a change of a linear layer's weight and bias."""
    return all(isinstance(patch, Affine | Weights) for _, patch in patches)


def additive(patches: Patches) -> bool:
    """Whether every patch is a delta alone, so that weights scale it."""
    return all(
        isinstance(patch, Weights) or (isinstance(patch, Affine) and patch.low_rank_only)
        for _, patch in patches
    )


def base_bytes(model: Any) -> str:
    """sha256 over every parameter and buffer by name, and the class of every module."""
    hasher = hashlib.sha256()
    for name, module in model.named_modules():
        hasher.update(f"{name} {type(module).__module__}.{type(module).__qualname__}\n".encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        hasher.update(_bytes_of(tensor))
    return hasher.hexdigest()


def logits_of(model: Any, *, rows: int = 2, length: int = 12) -> Any:
    """Logits (rows, length, vocabulary) for fixed token ids."""
    import torch

    make = torch.Generator().manual_seed(7)
    ids = torch.randint(8, model.config.vocab_size, (rows, length), generator=make)
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


def _fold_site(layer: Any, patch: Patch, weight: float) -> None:
    import torch
    from transformers.pytorch_utils import Conv1D

    # GPT-2's Conv1D holds its weight as (in, out).
    stored = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    if isinstance(patch, Weights):
        stored += weight * patch.difference.double()
        return
    if not isinstance(patch, Affine):
        raise CapabilityError(
            f"a {type(patch).__name__} has no weights to fold", hint="compare it attached"
        )
    if patch.A is not None:
        columns = 1.0 if patch.column_scale is None else patch.column_scale.double()
        stored += weight * patch.scaling * patch.B.double() @ (patch.A.double() * columns)
    if patch.row_scale is not None:
        stored *= patch.row_scale.double()[:, None]
    if patch.bias is not None:
        old = torch.zeros_like(patch.bias).double() if layer.bias is None else layer.bias
        layer.bias = torch.nn.Parameter(old + patch.bias.double(), requires_grad=False)


def _bytes_of(tensor: Any) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().flatten()
    data: bytes = flat.view(torch.uint8).numpy().tobytes()
    return data
