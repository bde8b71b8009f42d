"""The plain twin of adapters: what their patches say, in float64, on a copy of a dense base.

Written from the definitions in `adapterhub.domain.patch` alone, and knowing no method, so that it
can be held against any.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from adapterhub.domain.patch import Affine, Block, Patch, Prompt, Weights
from adapterhub.errors import CapabilityError

Patches = Iterable[tuple[str, Patch]]
Part = tuple[Patches, float]


def answers(model: Any, parts: Sequence[Part], *, ids: Any = None) -> Any:
    """Logits in float64 for `ids`, by default those of `logits_of`, of a bare dense model with
    several adapters, each the (patches, weight) of one.

    Raises CapabilityError for a prompt that is messages, which no token ids can show.
    """
    import torch

    listed = [(list(patches), weight) for patches, weight in parts]
    plain = _folded(model, listed)
    prompts = [
        _weighted(patch, weight)
        for patches, weight in listed
        for _, patch in patches
        if isinstance(patch, Prompt)
    ]
    ids = fixed_ids(model) if ids is None else ids
    with torch.no_grad():
        return _after(plain, prompts, ids) if prompts else _logits(plain, input_ids=ids)


def fold(model: Any, patches: Patches, *, weight: float = 1.0) -> Any:
    """A float64 copy of a dense model with these patches in it, their differences times `weight`.

    Raises CapabilityError for a prompt, which is before the model and not in it.
    """
    listed = list(patches)
    if any(isinstance(patch, Prompt) for _, patch in listed):
        raise CapabilityError("a Prompt is no part of a model", hint="ask `answers` for its logits")
    return _folded(model, [(listed, weight)])


def written(patches: Patches) -> bool:
    """Whether token ids can show the whole effect: true of everything but messages."""
    return not any(
        isinstance(patch, Prompt) and (patch.messages or patch.template is not None)
        for _, patch in patches
    )


def scaled(patches: Patches) -> bool:
    """Whether a weight other than 1 means anything to these patches: half a prompt is none."""
    return not any(isinstance(patch, Prompt) for _, patch in patches)


def additive(patches: Patches) -> bool:
    """Whether every patch is a sum with what the base computes, so that a weight scales it."""
    return all(
        isinstance(patch, Weights | Block)
        or (isinstance(patch, Affine) and patch.row_scale is None and patch.column_scale is None)
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


def fixed_ids(model: Any, *, rows: int = 2, length: int = 12) -> Any:
    """The same token ids (rows, length) every time, none of them a special one."""
    import torch

    make = torch.Generator().manual_seed(7)
    ids = torch.randint(8, model.config.vocab_size, (rows, length), generator=make)
    return ids.to(model.device)


def logits_of(model: Any, *, rows: int = 2, length: int = 12) -> Any:
    """Logits (rows, length, vocabulary) for fixed token ids."""
    import torch

    ids = fixed_ids(model, rows=rows, length=length)
    with torch.inference_mode():
        return _logits(model, input_ids=ids)


def _logits(model: Any, **inputs: Any) -> Any:
    return model(**inputs, use_cache=False).logits


# --- in the model -----------------------------------------------------------------------------


def _folded(model: Any, parts: Sequence[tuple[list[tuple[str, Patch]], float]]) -> Any:
    import torch

    plain = copy.deepcopy(model).double()
    blocks: dict[str, list[tuple[Block, float]]] = {}
    changes: list[tuple[Any, Any]] = []
    with torch.no_grad():
        # Every difference is taken from the untouched base before any of them is added.
        for patches, weight in parts:
            for name, patch in patches:
                module = plain.get_submodule(name)
                if isinstance(patch, Affine):
                    changes.append((_stored_weight(module), weight * _difference(module, patch)))
                    if patch.bias is not None:
                        changes.append((_bias(module), weight * patch.bias.double()))
                elif isinstance(patch, Weights):
                    parameter = getattr(module, patch.parameter)
                    changes.append((parameter, weight * patch.difference.double()))
                elif isinstance(patch, Block):
                    blocks.setdefault(name, []).append((patch, weight))
        for tensor, change in changes:
            tensor.add_(change.to(tensor.device))
    for name, beside in blocks.items():
        _put_beside(plain.get_submodule(name), beside)
    return plain


def _stored_weight(module: Any) -> Any:
    """(out, in), a view of what the module holds: GPT-2's Conv1D keeps it as (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return module.weight.T if isinstance(module, Conv1D) else module.weight


def _difference(module: Any, patch: Affine) -> Any:
    """row_scale * (W + scaling * B A) * column_scale - W, in float64."""
    W = _stored_weight(module)
    changed = W.clone()
    if patch.A is not None:
        changed += patch.scaling * patch.B.to(W) @ patch.A.to(W)
    if patch.row_scale is not None:
        changed *= patch.row_scale.to(W)[:, None]
    if patch.column_scale is not None:
        changed *= patch.column_scale.to(W)
    return changed - W


def _bias(module: Any) -> Any:
    import torch

    if module.bias is None:
        weight = _stored_weight(module)
        module.bias = torch.nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)
    return module.bias


def _put_beside(sublayer: Any, beside: Sequence[tuple[Block, float]]) -> None:
    own = [
        (copy.deepcopy(patch.module).double().eval(), patch.reads, weight)
        for patch, weight in beside
    ]

    def add(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x = args[0] if args else kwargs["hidden_states"]
        y = output[0] if isinstance(output, tuple) else output
        total = y
        for module, reads, weight in own:
            total = total + weight * module(y if reads == "output" else x)
        return (total, *output[1:]) if isinstance(output, tuple) else total

    sublayer.register_forward_hook(add, with_kwargs=True)


# --- before the model -------------------------------------------------------------------------


def _weighted(prompt: Prompt, weight: float) -> Prompt:
    if weight != 1.0:
        raise CapabilityError(f"a prompt times {weight:g} means nothing", hint="use the weight 1")
    if not written([("", prompt)]):
        raise CapabilityError(
            "a prompt of messages has no token ids", hint="compare conversations instead"
        )
    return prompt


def _after(model: Any, prompts: Sequence[Prompt], ids: Any) -> Any:
    """Logits for `ids` behind the virtual tokens of each prompt, in their order."""
    import torch

    if all(prompt.key_values is None for prompt in prompts):
        virtual = torch.cat([prompt.embeddings for prompt in prompts]).to(ids.device).double()
        real = model.get_input_embeddings()(ids)
        embedded = torch.cat([virtual.expand(len(ids), -1, -1), real], dim=1)
        return _logits(model, inputs_embeds=embedded)[:, len(virtual) :]
    return _after_cache(model, prompts, ids)


def _after_cache(model: Any, prompts: Sequence[Prompt], ids: Any) -> Any:
    import torch
    from transformers import DynamicCache

    # Without the model's config every layer sees everything, sliding windows aside.
    cache, rows, seen = DynamicCache(), len(ids), 0
    for prompt in prompts:
        if prompt.key_values is None:
            virtual = prompt.embeddings.to(ids.device).double().expand(rows, -1, -1)
            positions = torch.arange(seen, seen + virtual.shape[1], device=ids.device)
            model(
                inputs_embeds=virtual,
                past_key_values=cache,
                use_cache=True,
                position_ids=positions.expand(rows, -1),
            )
        else:
            pairs = prompt.key_values.to(ids.device).double()
            for layer, (keys, values) in enumerate(pairs):
                cache.update(
                    keys.expand(rows, *keys.shape), values.expand(rows, *values.shape), layer
                )
        seen = cache.get_seq_length()
    positions = torch.arange(seen, seen + ids.shape[1], device=ids.device)
    return model(
        input_ids=ids,
        past_key_values=cache,
        use_cache=True,
        position_ids=positions.expand(rows, -1),
        attention_mask=torch.ones(rows, seen + ids.shape[1], dtype=torch.long, device=ids.device),
    ).logits


def _bytes_of(tensor: Any) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().flatten()
    data: bytes = flat.view(torch.uint8).numpy().tobytes()
    return data
