"""Verify an adapter on a loaded base: does it fit, and does it do what it did when it was made?

The bytes are `adapterhub.hub.verify`'s; here the adapter is attached and asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.probe import Environment, Probe
from adapterhub.errors import AdapterhubError, CapabilityError, NoEffectError
from adapterhub.hub.folder import AdapterFolder, adapter_digest, read_folder
from adapterhub.hub.notes import add_notes
from adapterhub.hub.problems import Problem
from adapterhub.models.loader import load_base
from adapterhub.runtime.attach import read_state
from adapterhub.runtime.engine import ReferenceEngine, open_engine
from adapterhub.runtime.subjects import slot_of
from adapterhub.trust.companions import companion_notes
from adapterhub.trust.effect import Heard, check_effect, effect_of, hear
from adapterhub.trust.golden import repeat_golden
from adapterhub.trust.norms import module_norms
from adapterhub.trust.probe import Comparison, compare, environment_of, environment_on
from adapterhub.trust.verdict import (
    NO_EFFECT,
    PROBE_MISMATCH,
    Verdict,
    keep_verdict,
    kept_verdict,
    verdict_key,
)

if TYPE_CHECKING:
    from adapterhub.compose.members import Member

SLOT = "verified"
ENGINE = "reference"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A verdict, and whether it was there already."""

    verdict: Verdict
    kept: bool


def verify_attached(
    path: Path, spec: BaseSpec, *, device: str | None = None
) -> tuple[list[Problem], dict[str, Any]]:
    """Problems found by attaching the adapter in `path` to the base, and what was measured."""
    folder = read_folder(path)
    if folder.composition is not None:
        return [], {"effect": "unchecked: it is its members, each of which can be verified"}
    engine = open_engine(load_base(spec, device=device))
    try:
        engine.rack.check_base(folder)
        unchecked = _attach(engine, folder)
    except AdapterhubError as error:
        return [Problem("does-not-fit", error.message, error.hint or "")], {"effect": "none"}
    if unchecked:
        return [], {"effect": f"unchecked: {unchecked}"}
    verdict = judge(engine, SLOT, folder, fresh=True).verdict
    problem = verdict.problem(path.name)
    problems, facts = ([problem] if problem else []), facts_of(verdict)
    add_notes(facts, companion_notes(path, engine.base))
    if folder.manifest.golden and not problems:
        found, said = repeat_golden(engine, ((SLOT, 1.0),), folder.manifest)
        problems += found
        facts["golden"] = said
    return problems, facts


def _attach(engine: ReferenceEngine, folder: AdapterFolder) -> str:
    """Why our method cannot attach what peft may: no fault of the adapter's. Empty if it could."""
    try:
        engine.rack.attach(SLOT, folder)
    except CapabilityError as error:
        return error.message
    return ""


def judge_stored(path: Path, spec: BaseSpec, *, device: str | None = None) -> Verdict:
    """The verdict on the adapter in `path`; the base is loaded only where none was kept.

    Raises what attaching raises, and for a composition UsageError: its members are asked.
    """
    folder = read_folder(path)
    found = kept_verdict(_key(folder, environment_on(spec, device)))
    if found is not None:
        return found
    engine = open_engine(load_base(spec, device=device))
    engine.rack.attach(SLOT, folder)
    return judge(engine, SLOT, folder).verdict


def judge(
    engine: ReferenceEngine, slot: str, folder: AdapterFolder, *, fresh: bool = False
) -> Judged:
    """The verdict on the adapter in `slot`, which is that of `folder`; asked anew if `fresh`."""
    key = _key(folder, environment_of(engine.base))
    found = None if fresh else kept_verdict(key)
    if found is not None:
        return Judged(verdict=found, kept=True)
    verdict = _ask(engine, slot, folder)
    keep_verdict(key, verdict)
    return Judged(verdict=verdict, kept=False)


def check_members(
    engine: ReferenceEngine,
    members: Sequence[Member],
    *,
    allow: Collection[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Every attached member against its probe, each once. The codes that had to be allowed.

    Raises NoEffectError for one that changes nothing, MismatchError for one whose effect is not
    that of its probe.
    """
    allowed: set[str] = set()
    for member in members:
        judged = judge(engine, slot_of(member), member.folder)
        codes = judged.verdict.refuse(member.ref, allow=allow)
        allowed.update(codes)
        if codes:
            say(f"note: {member.ref}: {judged.verdict.message}")
        elif not judged.kept and judged.verdict.cosine is not None:
            say(f"{member.ref}: {judged.verdict}")
    return tuple(sorted(allowed))


def _key(folder: AdapterFolder, environment: Environment) -> str:
    digest = adapter_digest(folder.path, folder.config)
    return verdict_key(digest, folder.manifest.probe, environment, ENGINE)


def _ask(engine: ReferenceEngine, slot: str, folder: AdapterFolder) -> Verdict:
    heard = hear(engine, ((slot, 1.0),))
    effect = effect_of(heard)
    try:
        check_effect(effect, "it")
    except NoEffectError as error:
        finite = effect.finite
        return Verdict(
            code=NO_EFFECT,
            message=error.message,
            hint=error.hint or "",
            relative=effect.relative if finite else None,
            flips=effect.flips if finite else None,
        )
    probe = folder.manifest.probe
    found = _compared(engine, slot, folder, probe, heard) if probe else None
    if probe is None or found is None:
        why = "its maker recorded none" if probe is None else "it was made with other prompts"
        return Verdict(relative=effect.relative, flips=effect.flips, unprobed=why)
    return Verdict(
        code=PROBE_MISMATCH if found.fault else "",
        message=f"it does not do what it did when it was made: {found.fault}" * bool(found.fault),
        hint=f"pull it again, use its own base, or go on with --allow {PROBE_MISMATCH}"
        * bool(found.fault),
        relative=effect.relative,
        flips=effect.flips,
        cosine=found.cosine,
        strength=found.strength,
    )


def _compared(
    engine: ReferenceEngine, slot: str, folder: AdapterFolder, probe: Probe, heard: Heard
) -> Comparison | None:
    state = read_state(folder)
    bound = len(state.keys() & engine.rack.attached[slot].state().keys())
    norms = module_norms(folder, state)
    return compare(probe, heard, norms, spec=engine.base.spec, bound=bound)


def facts_of(verdict: Verdict) -> dict[str, Any]:
    """Of a verdict, for a report and as JSON."""
    facts: dict[str, Any] = {"effect": str(verdict)}
    names = {"relative": "effect_relative", "flips": "effect_flips", "cosine": "probe_cosine",
             "strength": "probe_strength"}  # fmt: skip
    for name, key in names.items():
        value = getattr(verdict, name)
        if value is not None:
            facts[key] = value
    return facts
