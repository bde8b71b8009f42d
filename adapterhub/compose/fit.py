"""Decide whether adapters fit together: one base, one layout, one shape at each module.

Compares outlines only; every refusal names both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations

from adapterhub.compose.outline import Outline
from adapterhub.domain.composition import ATTACHED
from adapterhub.domain.layout import parts_of
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.match import base_text, match_records
from adapterhub.domain.scales import module_weights
from adapterhub.errors import CapabilityError, MismatchError

DIFFERENT_BASE = "different-base"
TAKE_CENTROID = (
    "take one from rows like those it was trained on: adapterhub push DIR USER/NAME --base NAME "
    "--centroid FILE|TASK"
)
_COMPARED = {
    "rule": "how prompts were embedded",
    "layer": "the layer that was read",
    "dimension": "their dimension",
}


def check_attachable(strategy: str) -> None:
    """Raises CapabilityError for a strategy that exists merged alone."""
    if strategy not in ATTACHED:
        raise CapabilityError(
            f"{strategy} cannot be attached unmerged",
            hint="merge it first: adapterhub stack ... -o DIR",
        )


def check_stackable(outlines: Sequence[Outline]) -> None:
    """Raises CapabilityError naming the adapter whose method does not declare `stack`."""
    for outline in outlines:
        if not outline.stackable:
            raise CapabilityError(
                f"{outline.ref} is a {outline.method} adapter, and {outline.method} does not stack",
                hint="run it alone; `adapterhub methods` shows which methods stack",
            )


def check_scales(outlines: Sequence[Outline]) -> None:
    """Raises CapabilityError naming the adapter whose method knows no weight of a module, and
    UsageError for a pattern that is about no module of its adapter, where those are known."""
    for outline in outlines:
        if not outline.scales:
            continue
        if not outline.scalable:
            raise unscalable(outline.ref, outline.method)
        if outline.modules is not None:
            module_weights(
                outline.ref,
                weight=outline.weight,
                scales=outline.scales,
                modules=outline.modules,
            )


def unscalable(ref: str, method: str) -> CapabilityError:
    return CapabilityError(
        f"{ref} is a {method} adapter, and {method} gives no module a weight of its own",
        hint="leave its scales out; `adapterhub methods` shows which methods take module-weights",
    )


def check_mergeable(outlines: Sequence[Outline]) -> None:
    """Raises CapabilityError naming the first adapter that is more than low-rank deltas."""
    for outline in outlines:
        if outline.unmergeable:
            raise CapabilityError(
                f"{outline.ref}, a {outline.method} adapter, cannot be merged: "
                f"{outline.unmergeable}",
                hint="attach it instead: A+B works wherever an adapter is expected, and "
                "`adapterhub stack` without -o writes it down",
            )


def check_base(
    outlines: Sequence[Outline], *, allow: Collection[str]
) -> tuple[BaseRecord, tuple[str, ...]]:
    """The members' base as the best-informed of them knows it, and what had to be allowed.

    Raises MismatchError for two bases, unless `allow` holds `different-base`.
    """
    allowed: tuple[str, ...] = ()
    for one, other in combinations(outlines, 2):
        found = match_records(one.base, other.base)
        if found.fits:
            continue
        if DIFFERENT_BASE not in allow:
            raise MismatchError(
                f"{one.ref} was made for {_named(one.base)}, but {other.ref} for "
                f"{_named(other.base)}, {found.reason}",
                hint=found.hint
                or "stack adapters of one base; if these are the same weights under two names, "
                f"say so with --allow {DIFFERENT_BASE}",
            )
        allowed = (DIFFERENT_BASE,)
    best = max((outline.base for outline in outlines), key=_knowledge)
    schemes = {outline.base.scheme for outline in outlines}
    return replace(best, scheme=best.scheme if len(schemes) == 1 else None), allowed


def check_centroids(outlines: Sequence[Outline]) -> None:
    """Raises MismatchError naming an adapter without a centroid, or two whose centroids a prompt
    cannot be held against alike."""
    for outline in outlines:
        if outline.centroid is None:
            raise MismatchError(
                f"{outline.ref} has no centroid, so nothing says which prompts it was trained on",
                hint=TAKE_CENTROID,
            )
    first = outlines[0]
    for other in outlines[1:]:
        found = next((fact for fact in _COMPARED if _fact(first, fact) != _fact(other, fact)), None)
        if found:
            raise MismatchError(
                f"the centroids of {first.ref} and {other.ref} differ in {_COMPARED[found]}: "
                f"{_fact(first, found)} and {_fact(other, found)}",
                hint=TAKE_CENTROID,
            )


def check_layouts(outlines: Sequence[Outline]) -> None:
    """Refuse a fused layer beside its own parts: no base has both, so one would be left out."""
    owners = {module: outline.ref for outline in outlines for module in outline.sites}
    for module, ref in owners.items():
        part = next((name for name in parts_of(module) if name in owners), None)
        if part:
            raise MismatchError(
                f"{ref} adapts the fused layer {module}, but {owners[part]} its part {part}",
                hint="the base stores one or the other; carry one over: adapterhub convert "
                f"{ref} --layout split -o DIR",
            )


def check_shapes(outlines: Sequence[Outline]) -> None:
    """Raises MismatchError naming the module, both adapters and both shapes."""
    first: dict[str, Outline] = {}
    for outline in outlines:
        for module, site in outline.sites.items():
            known = first.setdefault(module, outline)
            if known.sites[module].shape != site.shape:
                raise MismatchError(
                    f"{module} is {known.sites[module].shape} for {known.ref}, "
                    f"but {site.shape} for {outline.ref}",
                    hint="they were made for different bases, whatever their manifests say",
                )


def _fact(outline: Outline, name: str) -> object:
    return getattr(outline.centroid, name)


def _knowledge(base: BaseRecord) -> tuple[bool, bool]:
    return base.fingerprint is not None, base.revision is not None


def _named(base: BaseRecord) -> str:
    if base.fingerprint:
        return f"{base.id} (content {base.fingerprint.content[:12]})"
    return base_text(base)
