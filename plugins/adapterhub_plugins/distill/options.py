"""The options of `distill`, read once and held to what they can mean.

Knows numbers and words only; what they do is for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapterhub.domain.options import refuse_unknown
from adapterhub.domain.seed import check_seed
from adapterhub.errors import UsageError
from adapterhub_plugins.distill import OPTIONS

Divergence = Literal["forward", "reverse", "js"]
DIVERGENCES: tuple[Divergence, ...] = ("forward", "reverse", "js")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """`hard` is the share of the ordinary cross-entropy, `beta` the teacher's share in the mixture
    of `js`. `align` compares sorted probabilities. `cache` asks the teacher once, for `samples`
    tokens of each position drawn by `seed`: True for the length of a run, or in a folder.
    """

    temperature: float
    divergence: Divergence
    beta: float
    hard: float
    align: bool
    cache: str | bool
    samples: int
    seed: int


def read_options(given: Mapping[str, Any]) -> Options:
    """Raises UsageError for an option there is not, one that means nothing, and two that clash.

    The hard labels weigh little by default, as in Hinton et al. (arXiv 1503.02531), who found a
    considerably lower weight for them best. Aligned, they carry what sorting loses, which token is
    meant: then half, at temperature 1.
    """
    refuse_unknown("distill", given, OPTIONS)
    align = _flag(given, "align")
    divergence = given.get("divergence", "forward")
    if divergence not in DIVERGENCES:
        raise UsageError(
            f"there is no divergence {divergence!r}", hint=f"use {', '.join(DIVERGENCES)}"
        )
    cache = given.get("cache", False)
    if not isinstance(cache, bool | str) or cache == "":
        raise UsageError(f"cache={cache!r} is no place", hint="use true, or the path of a folder")
    options = Options(
        temperature=_number(given, "temperature", 1.0 if align else 2.0, low=0.05, high=100),
        divergence=divergence,
        beta=_number(given, "beta", 0.5, low=0.01, high=0.99),
        hard=_number(given, "hard", 0.5 if align else 0.1, low=0, high=1),
        align=align,
        cache=cache,
        samples=_whole(given, "samples", 64),
        seed=_whole(given, "seed", 0),
    )
    _check_together(options, given)
    return options


def _check_together(options: Options, given: Mapping[str, Any]) -> None:
    check_seed(options.seed)
    if options.samples < 1:
        raise UsageError(f"samples={options.samples} teach nothing", hint="64 are usual")
    if options.cache and options.divergence != "forward":
        raise UsageError(
            f"the divergence {options.divergence!r} cannot be had from a cache: samples of the "
            "teacher estimate the forward divergence alone",
            hint="leave out cache, or use divergence=forward",
        )
    if options.align and (options.cache or "divergence" in given):
        raise UsageError(
            "align compares sorted probabilities, which no sample gives and no divergence does",
            hint="leave out cache and divergence",
        )
    if options.align and options.hard == 0:
        raise UsageError(
            "align says how sure the teacher is, but not of what, so hard=0 teaches no answer",
            hint="hard=0.5 is usual",
        )


def _number(
    given: Mapping[str, Any], name: str, default: float, *, low: float, high: float
) -> float:
    value = given.get(name, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise UsageError(
            f"{name}={value!r} makes no sense for distill", hint=f"use {low:g} to {high:g}"
        )
    return float(value)


def _whole(given: Mapping[str, Any], name: str, default: int) -> int:
    value = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{name}={value!r} is no whole number", hint=f"{default} is usual")
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r} is neither true nor false", hint=f"use {name}=true")
    return value
