"""What was found of an adapter on a base, kept so that the same question is asked once.

A verdict is known by the adapter's bytes and probe, the base and its precision, and whatever
computed it; any of them changed, it is asked anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapterhub import __version__
from adapterhub.domain.digest import digest_of
from adapterhub.domain.probe import Environment, Probe
from adapterhub.errors import FormatError, MismatchError, NoEffectError, StorageError
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.files import atomic_write, read_bytes, sweep_folder
from adapterhub.hub.home import cache_dir
from adapterhub.hub.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection

NO_EFFECT = "no-effect"
PROBE_MISMATCH = "probe-mismatch"
_LIMIT = 1 << 16
_KEPT = 90 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`code` is empty where nothing is wrong, else that of a Problem whose message follows the
    adapter's name. `relative` and `flips` are None for logits that are not finite, `cosine` and
    `strength` without a probe to compare with; then `unprobed` says why there is none."""

    code: str = ""
    message: str = ""
    hint: str = ""
    relative: float | None = None
    flips: float | None = None
    cosine: float | None = None
    strength: float | None = None
    unprobed: str = ""

    def problem(self, name: str) -> Problem | None:
        return Problem(self.code, f"{name}: {self.message}", self.hint) if self.code else None

    def refuse(self, name: str, *, allow: Collection[str]) -> tuple[str, ...]:
        """The code that had to be allowed, if any. Raises NoEffectError or MismatchError."""
        problem = self.problem(name)
        if problem is None:
            return ()
        if problem.code not in allow:
            kind = NoEffectError if problem.code == NO_EFFECT else MismatchError
            raise kind(problem.message, hint=problem.hint)
        return (problem.code,)

    def __str__(self) -> str:
        if self.relative is None:
            return "NaN or infinite logits"
        text = f"logits change by {self.relative:.1%}, {self.flips:.0%} of likeliest tokens differ"
        if self.cosine is None:
            return f"{text}; no probe to compare with: {self.unprobed}"
        return f"{text}; beside its probe: cosine {self.cosine:.3f}, strength {self.strength:.2f}"


def verdict_key(adapter: str, probe: Probe | None, environment: Environment, engine: str) -> str:
    """What a verdict depends on, as a digest."""
    made_by = [engine, __version__]
    return digest_of([adapter, to_plain(probe), to_plain(environment), made_by])


def kept_verdict(key: str) -> Verdict | None:
    """None where there is none, or none that can be read: then it is asked again."""
    path = _path(key)
    try:
        data = read_bytes(path, limit=_LIMIT)
        if data is None:
            return None
        found = to_domain(loads_strict(data, name=key), Verdict, name=key)
    except (FormatError, StorageError):
        return None
    return found if _whole(found) else None


def keep_verdict(key: str, verdict: Verdict) -> None:
    """A disk that takes no verdict costs time at the next question, and nothing else."""
    path = _path(key)
    text = json.dumps(to_plain(_rounded(verdict)), indent=1, sort_keys=True, allow_nan=False)
    try:
        atomic_write(path, text.encode())
        sweep_folder(path.parent, older_than=_KEPT)
    except StorageError:
        return


def _whole(verdict: Verdict) -> bool:
    """A fault is told with its message and hint, and figures come in pairs."""
    told = bool(verdict.message and verdict.hint)
    return (
        verdict.code in ("", NO_EFFECT, PROBE_MISMATCH)
        and told == bool(verdict.code)
        and (verdict.relative is None) == (verdict.flips is None)
        and (verdict.cosine is None) == (verdict.strength is None)
    )


def _rounded(verdict: Verdict) -> Verdict:
    """Figures to six digits."""

    def digits(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.6g}")

    return replace(
        verdict,
        relative=digits(verdict.relative),
        flips=digits(verdict.flips),
        cosine=digits(verdict.cosine),
        strength=digits(verdict.strength),
    )


def _path(key: str) -> Path:
    return cache_dir() / "verdicts" / f"{key}.json"
