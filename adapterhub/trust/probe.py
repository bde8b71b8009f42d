"""Record what an adapter does to its base, and hold a later replay against it.

Two things are compared. The norms of the patches, from the stored bytes alone, tell whether it is
still the adapter that was recorded. Its effect on the logits (adapter minus base, at the recorded
tokens of each position, their mean taken off) tells whether this is still the base.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adapterhub.domain.digest import digest_of
from adapterhub.domain.probe import PROMPTS, Environment, Position, Probe
from adapterhub.trust.effect import Heard, effect_of

if TYPE_CHECKING:
    from torch import Tensor

    from adapterhub.domain.base import BaseSpec
    from adapterhub.domain.protocols import LoadedBase

TOP = 8  # tokens of each position that are recorded, likeliest with the adapter and without
LENGTH = 8  # positions of each prompt
PROMPT_SET = digest_of([[list(pair) for pair in PROMPTS], TOP, LENGTH])[:16]

# `python -m tests.bench.probe_calibration HOME`, SmolLM2 and five adapters, probes on NF4. Replayed
# on the same stored weights, on a CPU or CUDA, activations in bfloat16 and not float32: cosine from
# 0.98, strength from 0.92. On bf16 and int8 of the same base: from 0.60 and 0.70. Other bases of
# its shape: below 0.15. A base that was tuned or disturbed comes between.
MIN_COSINE, STRENGTH = 0.5, (0.5, 2.0)
SAME_MIN_COSINE, SAME_STRENGTH = 0.9, (0.8, 1.25)
# Of a module's norm: storing the weights in bfloat16 changes it by a tenth of this.
NORM_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """`cosine` and `strength` (a ratio of norms) are of the effect now and then; `norm_ratio` is
    that of the module whose norm differs most, `module`. `fault` says what is wrong, if anything
    is."""

    cosine: float
    strength: float
    norm_ratio: float
    module: str = ""
    fault: str = ""

    @property
    def figures(self) -> str:
        return f"cosine {self.cosine:.3f}, strength {self.strength:.2f}"


def environment_of(base: LoadedBase) -> Environment:
    """Where a base is computing now. Versions are read from metadata."""
    dtype = str(base.model.dtype).removeprefix("torch.")
    return replace(environment_on(base.spec, base.device), dtype=dtype)


def environment_on(spec: BaseSpec, device: str | None) -> Environment:
    """Where a base would compute once it is loaded, which this need not do."""
    from adapterhub.models.loader import best_device

    kind = (device or best_device()).partition(":")[0]
    return Environment(
        base=spec.fingerprint.content,
        scheme=spec.scheme,
        dtype="float32" if kind == "cpu" else "bfloat16",
        device=kind,
        torch=importlib.metadata.version("torch"),
        transformers=importlib.metadata.version("transformers"),
    )


def make_probe(
    base: LoadedBase,
    heard: Heard,
    *,
    adapter: str,
    norms: Mapping[str, float],
    tensors: int,
    bound: int,
) -> Probe | None:
    """The probe of what was heard; None where it is not finite, which no file can hold."""
    effect = effect_of(heard)
    if not effect.finite or not all(map(math.isfinite, norms.values())):
        return None
    return Probe(
        prompts=PROMPT_SET,
        adapter=adapter,
        tensors=tensors,
        bound=bound,
        relative=float(f"{effect.relative:.4g}"),
        norms=dict(norms),
        positions=tuple(
            _position(heard.without[row], heard.having[row]) for row in _rows(heard.lengths)
        ),
        environment=environment_of(base),
    )


def compare(
    probe: Probe,
    heard: Heard,
    norms: Mapping[str, float],
    *,
    spec: BaseSpec,
    bound: int | None = None,
) -> Comparison | None:
    """The replay, on the base `spec`, against the record; `bound` of the tensors reached the base
    this time. None where other prompts were asked, as another release of adapterhub may."""
    if probe.prompts != PROMPT_SET:
        return None
    module, norm_ratio = _worst(probe.norms, norms)
    rows = _rows(heard.lengths)
    known = len(rows) == len(probe.positions) and all(
        max(position.tokens) < heard.having.shape[1] for position in probe.positions
    )
    if not known:
        fault = (
            f"this base makes {len(rows)} positions of the prompts, its own made "
            f"{len(probe.positions)}: another tokenizer or chat template"
        )
        return Comparison(
            cosine=0.0, strength=0.0, norm_ratio=norm_ratio, module=module, fault=fault
        )
    then, now = _effects(probe, heard, rows)
    cosine = float(then @ now / (then.norm() * now.norm()).clamp(min=1e-30))
    strength = float(now.norm() / then.norm().clamp(min=1e-30))
    return Comparison(
        cosine=cosine,
        strength=strength,
        norm_ratio=norm_ratio,
        module=module,
        fault=_edited(norm_ratio, module)
        or _unbound(probe, bound)
        or _elsewhere(cosine, strength, same=_same_weights(probe, spec)),
    )


def _unbound(probe: Probe, bound: int | None) -> str:
    if bound is None or bound == probe.bound:
        return ""
    return f"{bound} of its tensors reach this base, {probe.bound} of {probe.tensors} did then"


def _edited(norm_ratio: float, module: str) -> str:
    if norm_ratio == 0 or math.isinf(norm_ratio):
        return f"{module} is in one of them only: layers were added or left out"
    if abs(norm_ratio - 1) > NORM_TOLERANCE:
        return (
            f"what it changes at {module} is {norm_ratio:.3g} times as large: its weights, rank, "
            "alpha or scaling were edited"
        )
    return ""


def _same_weights(probe: Probe, spec: BaseSpec) -> bool:
    """Whether the probe was taken on these very weights, as they are stored."""
    then = probe.environment
    return then.base == spec.fingerprint.content and then.scheme == spec.scheme


def _elsewhere(cosine: float, strength: float, *, same: bool) -> str:
    least, (low, high) = (SAME_MIN_COSINE, SAME_STRENGTH) if same else (MIN_COSINE, STRENGTH)
    where = "the weights it was recorded on" if same else "its own base in any precision"
    if not cosine >= least:
        cause = "it was changed" if same else "this is another base, or one that was changed"
        return (
            f"its effect points elsewhere (cosine {cosine:.3f}, at least {least:g} on {where}): "
            f"{cause}"
        )
    if not low <= strength <= high:
        return f"its effect is {strength:.2g} times as strong ({low:g} to {high:g} on {where})"
    return ""


def _worst(then: Mapping[str, float], now: Mapping[str, float]) -> tuple[str, float]:
    """The module whose norm differs most, and now over then; infinite or 0 where one has none.

    An adapter of very many modules has its largest recorded, and these alone are compared.
    """
    names = {*then, *now} if len(then) == len(now) else set(then)
    worst, ratio = "", 1.0
    for name in sorted(names):
        found = _ratio(now.get(name, 0.0), then.get(name, 0.0))
        if _distance(found) > _distance(ratio):
            worst, ratio = name, found
    return worst, ratio


def _ratio(now: float, then: float) -> float:
    if now == then:
        return 1.0
    return now / then if then else math.inf


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def _rows(lengths: tuple[int, ...]) -> list[int]:
    """The positions that are recorded: the first of each prompt."""
    rows: list[int] = []
    start = 0
    for length in lengths:
        rows += range(start, start + min(length, LENGTH))
        start += length
    return rows


def _position(without: Tensor, having: Tensor) -> Position:
    tokens = sorted({*without.topk(TOP).indices.tolist(), *having.topk(TOP).indices.tolist()})
    return Position(
        tokens=tuple(tokens),
        without=tuple(round(value, 4) for value in without[tokens].tolist()),
        having=tuple(round(value, 4) for value in having[tokens].tolist()),
    )


def _effects(probe: Probe, heard: Heard, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Both effects as one vector each, in float64."""
    import torch

    then, now = [], []
    for row, position in zip(rows, probe.positions, strict=True):
        tokens = list(position.tokens)
        recorded = torch.tensor(position.having).double() - torch.tensor(position.without).double()
        replayed = (heard.having[row, tokens] - heard.without[row, tokens]).double()
        # What is added to all logits alike changes no probability.
        then.append(recorded - recorded.mean())
        now.append(replayed - replayed.mean())
    return torch.cat(then), torch.cat(now)
