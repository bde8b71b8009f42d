"""Verify an adapter on a loaded base: does it fit, and does it change anything?

The bytes are `adapterhub.hub.verify`'s; here the adapter is attached and asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.errors import AdapterhubError, NoEffectError
from adapterhub.hub.folder import read_folder
from adapterhub.hub.problems import Problem
from adapterhub.models.loader import load_base
from adapterhub.runtime.engine import open_engine
from adapterhub.trust.effect import check_effect, measure_effect

SLOT = "verified"


def verify_attached(
    path: Path, spec: BaseSpec, *, device: str | None = None
) -> tuple[list[Problem], dict[str, Any]]:
    """Problems found by attaching the adapter in `path` to the base, and what was measured."""
    folder = read_folder(path)
    if folder.composition is not None:
        return [], {"effect": "unchecked: it is its members, each of which can be verified"}
    engine = open_engine(load_base(spec, device=device))
    try:
        engine.rack.attach(SLOT, folder)
    except AdapterhubError as error:
        return [Problem("does-not-fit", error.message, error.hint or "")], {"effect": "none"}
    effect = measure_effect(engine, ((SLOT, 1.0),))
    facts: dict[str, Any] = {"effect": "NaN or infinite logits"}
    if effect.finite:  # a NaN is no number that JSON could carry
        facts = {
            "effect": f"logits change by {effect.relative:.1%}, "
            f"{effect.flips:.0%} of likeliest tokens differ",
            "effect_relative": effect.relative,
            "effect_flips": effect.flips,
        }
    try:
        check_effect(effect, path.name)
    except NoEffectError as error:
        return [Problem("no-effect", error.message, error.hint or "")], facts
    return [], facts
