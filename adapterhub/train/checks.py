"""Whether a method, a base and a recipe go together, asked before a run costs anything.

Knows records, sites, patches and lengths; what rows say is checked where they are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.method import Capability, Method
from adapterhub.domain.patch import Prompt
from adapterhub.domain.protocols import AttachedAdapter, Example, LoadedBase, PrecedesInput
from adapterhub.domain.recipe import Recipe
from adapterhub.domain.sites import SITE_KINDS
from adapterhub.errors import CapabilityError, DataError, UsageError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of


def check_method(record: Method, spec: BaseSpec) -> None:
    """Raises CapabilityError for a method that is not trained, or not on such a base."""
    if Capability.TRAIN not in record.capabilities:
        instead = "see `adapterhub methods`" if record.tensors else "use `adapterhub design`"
        raise CapabilityError(f"{record.name} is not trained", hint=instead)
    if spec.scheme.quantized and Capability.QUANTIZED_BASE not in record.capabilities:
        raise CapabilityError(
            f"{record.name} does not work on a quantized base ({spec.scheme})",
            hint=f"add the base unquantized: adapterhub base add NAME {spec.source} --scheme bf16",
        )


def check_targets(config: Mapping[str, Any], base: Base) -> None:
    """Raises UsageError for a target that no layer of the base has: it would be skipped."""
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return
    linear = base.linear_sites()
    sites = {*linear, *(name for kind in SITE_KINDS for name in base.sites(kind))}
    for target in targets:
        if not any(site == target or site.endswith(f".{target}") for site in sites):
            close = difflib.get_close_matches(target, {_leaf(site) for site in sites}, n=1)
            leaves = sorted({_leaf(site) for site in linear})
            raise UsageError(
                f"{base.spec.name} has no layer called {target!r}",
                hint=f"did you mean {close[0]!r}?" if close else f"it has {', '.join(leaves)}",
            )


def _leaf(site: str) -> str:
    return site.rpartition(".")[2]


def check_packing(recipe: Recipe, base: Base, adapter: AttachedAdapter) -> None:
    """Raises CapabilityError for virtual tokens, of which a packed row would have one set only."""
    if recipe.batching != "packed":
        return
    patches = method_of(recipe.method).patches(adapter.config, adapter.state(), base)
    if isinstance(next(iter(patches), ("", None))[1], Prompt):
        raise CapabilityError(
            f"{recipe.method} puts its tokens before a row, and a packed row holds several "
            "conversations",
            hint="use --batching bucketed",
        )


def check_room(
    base: LoadedBase, adapter: AttachedAdapter, examples: Sequence[Example], *, name: str
) -> None:
    """Raises DataError for a row that fits into the base's context only without the adapter's
    virtual tokens, of which the last positions would run past it."""
    limit = base.spec.context_length
    if not limit or not isinstance(adapter, PrecedesInput):
        return
    ahead = adapter.virtual_tokens
    for example in examples:
        if len(example.ids) + ahead > limit:
            raise DataError(
                f"{name} line {example.line} has {len(example.ids)} tokens behind {ahead} virtual "
                f"ones, and {base.spec.name} takes {limit}",
                hint="shorten or split the row, or use fewer virtual tokens: -O tokens=N",
            )
