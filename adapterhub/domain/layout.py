"""The same weights in two layouts: one fused layer, or its parts as layers of their own.

Knows names and numbers of rows; it has never seen a weight. A fused layer's rows are those of its
parts, one after another, as in Phi-3's qkv_proj beside Llama's q_proj, k_proj and v_proj. The
canonical form of a base is split, without wrappers round its names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapterhub.domain.digest import digest_of
from adapterhub.domain.targets import FAMILIES

Layout = Literal["fused", "split"]
LAYOUTS: tuple[Layout, ...] = ("fused", "split")
_LAYERS = {leaf for family in FAMILIES.values() for leaf in family.linear}
# Fused leaf -> its parts, where these are layers in another family; GPT-2's are layers nowhere.
_PARTS = {
    leaf: parts
    for family in FAMILIES.values()
    for leaf, parts in family.fused
    if _LAYERS.issuperset(parts)
}
_WHOLE = {part: leaf for leaf, parts in _PARTS.items() for part in parts}
_LEAVES: Mapping[Layout, Iterable[str]] = {"fused": _PARTS, "split": _WHOLE}
_WRAPPERS = re.compile(r"^(?:(?:language_model|model|transformer)\.)+")
# What a wrapper of another modality adds to every module's name, in its two usual spellings.
_WRAPPED = re.compile(r"^(?:model\.)?language_model\.")
# Computed, not learnt; some versions of transformers stored them.
_BUFFERS = re.compile(r"\.rotary_emb\.inv_freq$|\.attn\.(?:masked_)?bias$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """How many attention heads ask, and how many groups of keys and values answer them."""

    queries: int
    groups: int


def heads_in(config: Mapping[str, Any]) -> Heads | None:
    """What a model's config.json states; None for a family with other names for them."""
    text = config.get("text_config", config)
    queries = text.get("num_attention_heads") if isinstance(text, dict) else None
    groups = text.get("num_key_value_heads") or queries if queries else None
    if type(queries) is int and type(groups) is int and 0 < groups <= queries:
        return Heads(queries=queries, groups=groups)
    return None


def section_rows(rows: int, parts: int, heads: Heads | None) -> tuple[int, ...] | None:
    """How many rows each part of a layer has: alike, but for keys and values, which are fewer than
    queries where these are grouped. None where heads are not known, or do not divide the rows."""
    shares = (1,) * parts
    if parts == 3:
        if heads is None:
            return None
        shares = (heads.queries, heads.groups, heads.groups)
    width, rest = divmod(rows, sum(shares))
    return None if rest or not width else tuple(width * share for share in shares)


def parts_of(module: str) -> tuple[str, ...]:
    """The layers that a fused one is in the split layout, in the order of its rows; none of
    others."""
    parent, dot, leaf = module.rpartition(".")
    return tuple(f"{parent}{dot}{part}" for part in _PARTS.get(leaf, ()))


def whole_of(module: str) -> str:
    """The fused layer that this one is a part of. Raises KeyError for others."""
    parent, dot, leaf = module.rpartition(".")
    return f"{parent}{dot}{_WHOLE[leaf]}"


def names_in(layout: Layout, modules: Iterable[str]) -> list[str]:
    """The names of layers that exist in this layout alone, in order."""
    return sorted(name for name in modules if name.rpartition(".")[2] in _LEAVES[layout])


def layout_of(family: str) -> Layout:
    """Which of the two a family's bases have."""
    table = FAMILIES.get(family)
    return "fused" if table and _PARTS.keys() & set(table.linear) else "split"


def canonical_names(name: str) -> tuple[str, ...]:
    """What a stored tensor holds, in the order of its rows; more than one where it is fused.

    `model.language_model.layers.0.self_attn.qkv_proj.weight` holds
    `layers.0.self_attn.q_proj.weight`, `...k_proj.weight` and `...v_proj.weight`.
    """
    bare = _WRAPPERS.sub("", name)
    stem, _, kind = bare.rpartition(".")
    return tuple(f"{part}.{kind}" for part in parts_of(stem)) or (bare,)


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
        divided = section_rows(shape[0], len(names), heads) if shape else None
        if divided is None:
            return None
        rows += [(n, [part, *shape[1:]]) for n, part in zip(names, divided, strict=True)]
    return digest_of(sorted([name, shape] for name, shape in rows))


def arrangement(names: Iterable[str]) -> str:
    """How a base's layers are laid out, as an adapter's module names must follow it: `fused`,
    `split` or, where nothing can be fused, `plain`; wrapped ones say so."""
    found = list(names)
    leaves = {part for name in found for part in name.split(".")}
    form = next((layout for layout in LAYOUTS if leaves.intersection(_LEAVES[layout])), "plain")
    wrapped = any(_WRAPPED.match(name) for name in found)
    return f"{form} in language_model" if wrapped else form


def form_of(arranged: str) -> str:
    """`fused`, `split` or `plain`, without what wraps it."""
    return arranged.partition(" ")[0]
