"""What an adapter was made from, as its manifest says: parts, teachers, a fine-tuned model.

Believes what is written; whether it still is so, `adapterhub.hub.family` looks up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapterhub.domain.composition import PinnedComposition, parse_composition
from adapterhub.domain.manifest import Manifest
from adapterhub.domain.scales import Scales
from adapterhub.errors import UsageError

# Keys of a manifest's recipe.
TAUGHT_BY = "taught_by"
EXTRACTED_FROM = "extracted_from"
Role = Literal["part", "teacher", "base of the teacher", "tuned model"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """One adapter or model that another was made from; what is not recorded is None."""

    ref: str
    role: Role
    weight: float = 1.0
    scales: Scales | None = None
    sha256: str | None = None
    commit: str | None = None

    @property
    def is_adapter(self) -> bool:
        return self.role in ("part", "teacher")


def origins(manifest: Manifest, composition: PinnedComposition | None = None) -> tuple[Origin, ...]:
    """In the order they are recorded. A composition's own file knows the commits as well."""
    if composition is not None:
        return tuple(
            Origin(
                ref=t.ref,
                role="part",
                weight=t.weight,
                scales=t.scales,
                sha256=t.sha256,
                commit=t.commit,
            )
            for t in composition.terms
        )
    parts = tuple(
        Origin(
            ref=parent.ref,
            role="part",
            weight=parent.weight,
            scales=parent.scales,
            sha256=parent.sha256,
        )
        for parent in manifest.parents
    )
    recipe = manifest.recipe or {}
    tuned = recipe.get(EXTRACTED_FROM)
    models = (Origin(ref=tuned, role="tuned model"),) if isinstance(tuned, str) else ()
    return (*parts, *_teachers(manifest, recipe), *models)


def _teachers(manifest: Manifest, recipe: Mapping[str, Any]) -> tuple[Origin, ...]:
    record = recipe.get(TAUGHT_BY)
    if not isinstance(record, Mapping):
        return _named(recipe.get("teacher"))
    adapters, base = record.get("adapters"), record.get("base")
    found = [
        Origin(
            ref=item["ref"],
            role="teacher",
            weight=weight if isinstance(weight := item.get("weight"), (int, float)) else 1.0,
            scales=_scales(item.get("scales")),
            sha256=sha256 if isinstance(sha256 := item.get("sha256"), str) else None,
        )
        for item in (adapters if isinstance(adapters, (list, tuple)) else ())
        if isinstance(item, Mapping) and isinstance(item.get("ref"), str)
    ]
    name = base.get("id") if isinstance(base, Mapping) else None
    if isinstance(name, str) and name.casefold() != manifest.base.id.casefold():
        found.append(Origin(ref=name, role="base of the teacher"))
    return tuple(found)


def _scales(record: object) -> Scales | None:
    if not isinstance(record, Mapping):
        return None
    found = {k: v for k, v in record.items() if isinstance(v, (int, float))}
    return found or None


def _named(teacher: object) -> tuple[Origin, ...]:
    """Of a recipe that names its teacher and no digest."""
    if not isinstance(teacher, str) or not teacher:
        return ()
    try:
        terms = parse_composition(teacher).terms
    except UsageError:
        return (Origin(ref=teacher, role="teacher"),)
    return tuple(Origin(ref=term.ref, role="teacher", weight=term.weight) for term in terms)
