"""Is this the base an adapter was made for? The one place that answers.

Compares what two sides say of a base; it has never seen a weight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from adapterhub.domain.base import Alias, BaseSpec, Fingerprint, Verdict, same_base
from adapterhub.domain.layout import LAYOUTS, form_of
from adapterhub.domain.manifest import BaseRecord
from adapterhub.errors import MismatchError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
WRONG_BASE = "wrong-base"  # the code of the problem, for those who accept it
_COMMIT = re.compile(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseMatch:
    """`fits` is what to act on, `verdict` what is known: equal bytes (same), equal norms
    (probable, or convertible where the layers are laid out otherwise), only the shapes (same
    layout), only a name (by name) or another base. `hint` is the next move, where the verdict knows
    one. `differences` do not make it another base, but change what an adapter says: precision,
    tokenizer, chat template."""

    verdict: Verdict | Literal["by name"]
    fits: bool
    reason: str = ""
    hint: str | None = None
    differences: tuple[str, ...] = ()


def another_base(
    name: str,
    made_for: BaseRecord,
    base: BaseSpec,
    found: BaseMatch,
    *,
    hint: str | None = None,
    beside: str = "",
) -> MismatchError:
    """What is raised of an adapter `name` where `found` does not fit. The next move is the
    verdict's own, `hint` or to add the right base; `beside` is another one."""
    add = f"add its own base: adapterhub base add NAME {source_of(made_for)}"
    return MismatchError(
        f"{name} was made for {base_text(made_for)}, but {base.name} is "
        f"{base_text(record_of(base))}, {found.reason}",
        hint=f"{found.hint or hint or add}{beside}",
    )


def record_of(base: BaseSpec) -> BaseRecord:
    """What an adapter remembers of the base it was made on."""
    return BaseRecord(
        id=base.id,
        revision=base.revision,
        family=base.family,
        fingerprint=base.fingerprint,
        scheme=base.scheme,
    )


def match_base(made_for: BaseRecord, base: BaseSpec) -> BaseMatch:
    """Judge a base on this machine, which may also be known by its source or its name here."""
    alias = next((alias for alias in base.aliases if _is_alias(made_for, alias)), None)
    if alias is not None:
        if made_for.fingerprint is None and _laid_out_otherwise(alias, base.fingerprint):
            return _convertible(alias.arrangement, base.fingerprint.arrangement)
        made_for = replace(made_for, id=base.id, revision=base.revision)
    also = frozenset({base.source.casefold(), base.name.casefold()})
    return match_records(made_for, record_of(base), also=also)


def match_records(
    one: BaseRecord, other: BaseRecord, *, also: frozenset[str] = frozenset()
) -> BaseMatch:
    """Fingerprints decide where both are known; names and commits do otherwise.

    Fine-tunes with frozen norms share a sketch, so equal norms under another name do not fit.
    """
    named_alike = one.id.casefold() in {other.id.casefold(), *also}
    commits_differ = _other_commit(one.revision, other.revision)
    differences = _differences(one, other)
    if one.fingerprint is None or other.fingerprint is None:
        if named_alike and not commits_differ:
            return BaseMatch(verdict="by name", fits=True, differences=differences)
        reason = "another revision" if named_alike else "and nothing shows that they are one"
        return BaseMatch(verdict="other", fits=False, reason=reason)
    verdict = same_base(one.fingerprint, other.fingerprint)
    if verdict == "same" or (verdict == "probable" and named_alike and not commits_differ):
        return BaseMatch(verdict=verdict, fits=True, differences=differences)
    if verdict == "convertible":
        return _convertible(one.fingerprint.arrangement, other.fingerprint.arrangement, differences)
    return BaseMatch(verdict=verdict, fits=False, reason=_REASONS[verdict], differences=differences)


_REASONS: dict[str, str] = {
    "probable": "whose norms are equal, as a fine-tune's may be",
    "same layout": "which has the same shape and other weights",
    "other": "and its weights are others",
}


def _convertible(
    there: str | None, here: str | None, differences: tuple[str, ...] = ()
) -> BaseMatch:
    """An adapter for layers laid out as `there` must take the layout of the base that is `here`."""
    form = form_of(here or "")
    convert = form in LAYOUTS and form != form_of(there or "")
    return BaseMatch(
        verdict="convertible",
        fits=False,
        reason=f"which probably is the same base with its layers {here} instead of {there}",
        hint=f"convert it: adapterhub convert ADAPTER --layout {form}" if convert else None,
        differences=differences,
    )


def _is_alias(record: BaseRecord, alias: Alias) -> bool:
    same = record.id.casefold() == alias.id.casefold()
    return same and not _other_commit(record.revision, alias.revision)


def _laid_out_otherwise(alias: Alias, print_: Fingerprint) -> bool:
    known = alias.arrangement is not None and print_.arrangement is not None
    return known and alias.arrangement != print_.arrangement


def base_text(record: BaseRecord) -> str:
    """`owner/name@a1b2c3d4e5f6`, as much of it as is known."""
    if record.revision is None:
        return record.id
    return f"{record.id}@{record.revision.removeprefix('sha256:')[:12]}"


def source_of(record: BaseRecord) -> str:
    """What to tell a person to add: a name on the hub, never a path or words of a stranger, which
    may be meant for their shell."""
    return record.id if _HUB_ID.fullmatch(record.id) else "SOURCE"


def _other_commit(one: str | None, other: str | None) -> bool:
    """Commits of one kind compare; a branch's name says nothing, nor does a file's hash."""
    if not one or not other or not _COMMIT.fullmatch(one) or not _COMMIT.fullmatch(other):
        return False
    return len(one) == len(other) and one != other


def _differences(one: BaseRecord, other: BaseRecord) -> tuple[str, ...]:
    found = []
    if one.scheme and other.scheme and one.scheme != other.scheme:
        found.append(f"it was trained on {one.scheme}, this base is {other.scheme}")
    left, right = one.fingerprint, other.fingerprint
    if left and right and left.layout != right.layout:
        found.append("its tensors' names, shapes or precision are not this base's")
    if left and right and left.tokenizer and right.tokenizer and left.tokenizer != right.tokenizer:
        found.append("its tokenizer is not this base's")
    if left and right and left.chat_template != right.chat_template:
        found.append("its chat template is not this base's")
    return tuple(found)
