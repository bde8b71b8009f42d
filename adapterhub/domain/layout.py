"""The tensors of a base in one canonical form: split, and without wrappers round the names.

Names and shapes only, so that two files of one model can be held against each other though one
stores a layer fused and the other its parts. It has never seen a weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapterhub.domain.digest import digest_of
from adapterhub.domain.targets import FAMILIES

FUSED, SPLIT, PLAIN = "fused", "split", "plain"
# Rows of q, k and v, one below the other, and rows of gate and up: the layouts that fuse by rows.
_PARTS = {
    leaf: parts
    for family in FAMILIES.values()
    for leaf, parts in family.fused
    if parts[0].endswith("_proj")
}
_ATTENTION = "qkv_proj"
_WRAPPERS = re.compile(r"^(?:(?:language_model|model|transformer)\.)+")
# What a wrapper of another modality adds to every module's name, in its two usual spellings.
_WRAPPED = re.compile(r"^(?:model\.)?language_model\.")
# Computed, not learnt; some versions of transformers stored them.
_BUFFERS = re.compile(r"\.rotary_emb\.inv_freq$|\.attn\.(?:masked_)?bias$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Attention heads of a model, in rows of a projection: q has `query` x `width` of them, k and
    v `key_value` x `width` each."""

    query: int
    key_value: int
    width: int


def canonical_names(name: str) -> tuple[str, ...]:
    """What a stored tensor holds, in the order of its rows; more than one where it is fused.

    `model.language_model.layers.0.self_attn.qkv_proj.weight` holds
    `layers.0.self_attn.q_proj.weight`, `...k_proj.weight` and `...v_proj.weight`.
    """
    bare = _WRAPPERS.sub("", name)
    stem, dot, kind = bare.rpartition(".")
    path, _, leaf = stem.rpartition(".")
    parts = _PARTS.get(leaf)
    if not dot or parts is None:
        return (bare,)
    return tuple(f"{path}.{part}.{kind}" for part in parts)


def part_rows(name: str, rows: int, heads: Heads | None) -> tuple[int, ...] | None:
    """How the rows of a stored tensor divide among its `canonical_names`; None where its heads are
    not known or do not fill it."""
    count = len(canonical_names(name))
    if count == 1:
        return (rows,)
    if f".{_ATTENTION}." not in f".{name}":
        return (rows // count,) * count if rows % count == 0 else None
    if heads is None:
        return None
    query, key_value = heads.query * heads.width, heads.key_value * heads.width
    return (query, key_value, key_value) if query + 2 * key_value == rows else None


def canonical_digest(
    shapes: Mapping[str, tuple[int, ...]], heads: Heads | None, *, tied: bool
) -> str | None:
    """sha256 over the sorted canonical (name, shape); None where a fused tensor cannot be divided.

    A head that is `tied` to the embedding is left out: some files repeat it, some do not.
    """
    rows: list[tuple[str, list[int]]] = []
    for name, shape in shapes.items():
        if _BUFFERS.search(name) or (tied and name.endswith("lm_head.weight")):
            continue
        names = canonical_names(name)
        if len(names) == 1:
            rows.append((names[0], list(shape)))
            continue
        divided = part_rows(name, shape[0], heads) if shape else None
        if divided is None:
            return None
        rows += [(n, [part, *shape[1:]]) for n, part in zip(names, divided, strict=True)]
    return digest_of(sorted([name, shape] for name, shape in rows))


def arrangement(names: Iterable[str]) -> str:
    """How a base's layers are laid out, as an adapter's module names must follow it: `fused`,
    `split` or, where nothing can be fused, `plain`; wrapped ones say so."""
    found = list(names)
    leaves = {part for name in found for part in name.split(".")}
    form = PLAIN
    if leaves & set(_PARTS):
        form = FUSED
    elif leaves & {part for parts in _PARTS.values() for part in parts}:
        form = SPLIT
    wrapped = any(_WRAPPED.match(name) for name in found)
    return f"{form} in language_model" if wrapped else form


def form_of(arranged: str) -> str:
    """`fused`, `split` or `plain`, without what wraps it."""
    return arranged.partition(" ")[0]
