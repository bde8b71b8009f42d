"""How large the change is that an adapter makes at each module, from its stored bytes alone.

Reads patches, never a method's name; no base is asked, so that precision has no say in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from adapterhub.compose.factors import factors
from adapterhub.domain.patch import Affine, Block, Patch, Prompt, Weights
from adapterhub.errors import CapabilityError
from adapterhub.hub.folder import AdapterFolder
from adapterhub.runtime.attach import method_of

# More would not fit a manifest; the largest are kept.
MOST = 1024


def module_norms(folder: AdapterFolder, state: Mapping[str, Any]) -> dict[str, float]:
    """Module name -> Frobenius norm of its patch, four digits of it; by tensor instead where the
    method cannot describe the adapter without its base (DoRA).

    For scaling * B A it is taken through the factors: ||B A||^2 = sum (B^T B) * (A A^T).
    """
    try:
        found = {
            module or "model": _norm(patch)
            for module, patch in method_of(folder.manifest.method).patches(
                folder.config or {}, state
            )
        }
    except CapabilityError:
        found = {name: _size(tensor) for name, tensor in state.items()}
    largest = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:MOST]
    return {name: float(f"{norm:.4g}") for name, norm in sorted(largest)}


def _norm(patch: Patch) -> float:
    return math.sqrt(sum(size * size for size in _sizes(patch)))


def _sizes(patch: Patch) -> Iterator[float]:
    match patch:
        case Affine():
            if patch.A is not None:
                yield math.sqrt(factors(_flat(patch)).norm_squared())
            for scale in (patch.row_scale, patch.column_scale):
                if scale is not None:
                    yield _size(scale - 1)
            if patch.bias is not None:
                yield _size(patch.bias)
        case Block():
            yield from (_size(tensor) for tensor in patch.module.parameters())
        case Weights():
            yield _size(patch.difference)
        case Prompt():
            for tensor in (patch.embeddings, patch.key_values):
                if tensor is not None:
                    yield _size(tensor)
            texts = [content for _, content in patch.messages]
            yield float(sum(map(len, texts)) + len(patch.template or ""))


def _flat(patch: Affine) -> Affine:
    """Of a convolution, the same numbers as a matrix."""
    return Affine(A=patch.A.flatten(1), B=patch.B.flatten(1), scaling=patch.scaling)


def _size(tensor: Any) -> float:
    return float(torch.linalg.vector_norm(tensor.detach().double()))
