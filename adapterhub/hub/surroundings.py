"""Whether a machine's bases and plugins are those that a lock was made with.

Compares what is recorded of them; it opens no weights and asks no remote.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.lock import Lock, LockedAdapter
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.match import WRONG_BASE, another_base, base_text, match_base, record_of
from adapterhub.errors import MismatchError
from adapterhub.plugin.catalog import catalog


def check_bases(lock: Lock, bases: Sequence[BaseSpec]) -> list[str]:
    """Remarks on bases that are not on this machine.

    Raises MismatchError for one that is here and no longer what was locked.
    """
    remarks = []
    for item in lock.adapters:
        remark = _check_base(item, bases)
        if remark is not None:
            remarks.append(remark)
    return remarks


def plugin_remarks(lock: Lock) -> list[str]:
    """Where the methods and strategies of the lock come from other plugins here, or from none."""
    remarks = []
    for item in lock.adapters:
        for plugin in item.plugins:
            exact = f"{plugin.distribution}=={plugin.version}"
            here = _owner(plugin.brings)
            if here is None:
                remarks.append(f"{item.name} needs {plugin.brings}: pip install {exact}")
            elif here != exact:
                remarks.append(f"{item.name} was locked with {exact}; here is {here}")
    return list(dict.fromkeys(remarks))


def _owner(name: str) -> str | None:
    """The distribution here that brings a method or a strategy."""
    shelves = (catalog().methods.entries, catalog().strategies.entries)
    owners = [shelf[name].owner for shelf in shelves if name in shelf]
    return f"{owners[0].distribution}=={owners[0].version}" if owners else None


def _check_base(item: LockedAdapter, bases: Sequence[BaseSpec]) -> str | None:
    name = item.wanted.base
    if name is None:
        return _check_own_base(item, bases)
    spec = next((spec for spec in bases if spec.name == name), None)
    if spec is None:
        return (
            f"{item.name}: its base {name} is not on this machine: "
            f"adapterhub base add {name} {item.base.id}"
        )
    changed = _changed(item.base, record_of(spec))
    if changed is not None:
        raise MismatchError(
            f"{item.name}: the base {name} is not the one that was locked: {changed}",
            hint=f"add {base_text(item.base)} under that name, or lock this one: adapterhub lock",
        )
    return None


def _changed(locked: BaseRecord, here: BaseRecord) -> str | None:
    """Which of the digests, or the precision, is another one."""
    if locked.scheme != here.scheme:
        return f"it is {here.scheme}, and {locked.scheme} was locked"
    one, other = locked.fingerprint, here.fingerprint
    if one is None or other is None:
        return None if one == other else "it has no fingerprint to compare"
    for part, what in (
        ("content", "weights"),
        ("tokenizer", "tokenizer"),
        ("chat_template", "chat template"),
    ):
        mine, theirs = getattr(one, part), getattr(other, part)
        if mine != theirs:
            digests = f"{part} {(theirs or 'none')[:12]}, locked {(mine or 'none')[:12]}"
            return f"its {what} changed ({digests})"
    return None


def _check_own_base(item: LockedAdapter, bases: Sequence[BaseSpec]) -> str | None:
    """No base is named: some base here fits what the adapter records, or none claims to."""
    judged = [(match_base(item.base, spec), spec) for spec in bases]
    if any(found.fits for found, _ in judged) or WRONG_BASE in item.wanted.allow:
        return None
    for found, spec in judged:
        if spec.id.casefold() == item.base.id.casefold():
            raise another_base(item.name, item.base, spec, found)
    return f"{item.name}: its base {item.base.id} is not on this machine"
