"""Fold one adapter's patches into the weights of a loaded base.

Reads patches and never a method's name; what cannot be a weight is refused before anything changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from adapterhub.domain.patch import Affine, Patch, Weights
from adapterhub.errors import CapabilityError, MismatchError

if TYPE_CHECKING:
    from adapterhub.models.loader import Base
    from adapterhub.models.sites import ModuleSite


def merge(
    base: Base,
    patches: Iterable[tuple[str, Patch]],
    *,
    weight: float = 1.0,
    dequantize: bool = False,
) -> None:
    """Change the base in place, so that it answers as with the adapter attached at `weight`.

    On a quantized base every layer that changes becomes a float one, which has to be asked for.
    Raises CapabilityError for a patch that is no change of weights and for a quantized base without
    `dequantize`, MismatchError for a patch of another base; the base is then as it was.
    """
    import torch

    # All of them before the first change: some are computed from the base's own weights.
    listed = list(patches)
    for name, patch in listed:
        _check(base, name, patch)
    if base.spec.scheme.quantized and not dequantize:
        raise CapabilityError(
            f"{base.spec.name} holds {base.spec.scheme} weights, which cannot take a difference",
            hint="keep the adapter attached, or let its layers become float: dequantize=True",
        )
    with torch.no_grad():
        for name, patch in listed:
            if isinstance(patch, Affine):
                _merge_affine(base, base.sites("linear")[name], patch, weight)
            elif isinstance(patch, Weights):
                _merge_weights(base, name, patch, weight)


def _check(base: Base, name: str, patch: Patch) -> None:
    if isinstance(patch, Affine):
        site = base.sites("linear").get(name)
        expected = None if site is None else site.shape
        found: Any = affine_shape(patch, expected)
    elif isinstance(patch, Weights):
        found = tuple(patch.difference.shape)
        expected = _weights_shape(base, name, patch)
    else:
        where = f"at {name}" if name else "before the input"
        raise CapabilityError(
            f"a {type(patch).__name__} {where} is no change of weights",
            hint="keep the adapter attached; it cannot be merged",
        )
    if expected != found:
        raise MismatchError(
            f"{name} of this base is {expected or 'missing'}, and the adapter's is {found}",
            hint="the adapter was made for another base",
        )


def affine_shape(patch: Affine, default: Sequence[int] | None) -> tuple[int, ...] | None:
    """What (out, in) the patch is for, as far as it says so."""
    out, width = default or (0, 0)
    if patch.A is not None:
        out, width = patch.B.shape[0], patch.A[0].numel()
    for part in (patch.row_scale, patch.bias):
        out = out if part is None else len(part)
    width = width if patch.column_scale is None else len(patch.column_scale)
    return (int(out), int(width))


def _weights_shape(base: Base, name: str, patch: Weights) -> tuple[int, ...] | None:
    site = base.sites("linear").get(name)
    if site is not None and patch.parameter == "weight" and packed(site):
        return site.shape
    parameter = base.parameters().get(f"{name}.{patch.parameter}".removeprefix("."))
    return None if parameter is None else tuple(parameter.shape)


def difference(patch: Affine, W: Any) -> Any:
    """What the patch adds to a weight W (out, in), in its dtype; a bias apart."""
    changed = W.clone()
    if patch.A is not None:
        changed += patch.scaling * (patch.B.to(W) @ patch.A.to(W))
    if patch.row_scale is not None:
        changed *= patch.row_scale.to(W)[:, None]
    if patch.column_scale is not None:
        changed *= patch.column_scale.to(W)
    return changed - W


def _merge_affine(base: Base, site: ModuleSite, patch: Affine, weight: float) -> None:
    import torch

    W = site.weight()
    _put(base, site, W + weight * difference(patch, W))
    if patch.bias is None:
        return
    old = site.module.bias
    added = weight * patch.bias.to(W)
    if old is None:
        # As wide as the weight beside it: a bias in float32 would change what the layer answers in.
        dtype = site.module.weight.dtype
        site.module.bias = torch.nn.Parameter(added.to(dtype), requires_grad=False)
    else:
        old.copy_(old.to(W) + added)


def _merge_weights(base: Base, name: str, patch: Weights, weight: float) -> None:
    import torch

    site = base.sites("linear").get(name)
    if site is not None and patch.parameter == "weight" and packed(site):
        W = site.weight()
        _put(base, site, W + weight * patch.difference.to(W))
        return
    own = base.parameters()[f"{name}.{patch.parameter}".removeprefix(".")]
    total = own.to(torch.promote_types(own.dtype, torch.float32))
    own.copy_(total + weight * patch.difference.to(total))


def packed(site: ModuleSite) -> bool:
    """Whether the layer keeps something else than its weight."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return type(site.module) not in (nn.Linear, Conv1D)


def _put(base: Base, site: ModuleSite, weight: Any) -> None:
    """Give a layer another weight (out, in); one that packs its weight is replaced by one that
    does not."""
    from transformers.pytorch_utils import Conv1D

    if packed(site):
        _replace(base, site, weight)
    elif isinstance(site.module, Conv1D):
        site.module.weight.copy_(weight.T)
    else:
        site.module.weight.copy_(weight)


def _replace(base: Base, site: ModuleSite, weight: Any) -> None:
    from torch import nn

    old = site.module
    out, width = site.shape
    dense = nn.Linear(width, out, bias=old.bias is not None, device="meta")
    dtype = base.model.get_input_embeddings().weight.dtype
    dense.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if old.bias is not None:
        dense.bias = nn.Parameter(old.bias.to(dtype), requires_grad=False)
    dense.train(old.training)
    for parent in list(base.model.modules()):
        for leaf, child in list(parent.named_children()):
            if child is old:
                setattr(parent, leaf, dense)
    site.module = dense
