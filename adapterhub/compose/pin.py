"""Nail a composition down in `composition.toml`, and notice when a part of it has changed.

Where adapters come from is the caller's business; it hands over folders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from adapterhub import __version__
from adapterhub.compose.members import Member, open_member
from adapterhub.compose.plan import Arrangement
from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.manifest import COMPOSITION_FILE
from adapterhub.errors import IntegrityError, UsageError
from adapterhub.formats.composition_file import encode_composition
from adapterhub.hub.files import atomic_write
from adapterhub.hub.folder import AdapterFolder


def pin(members: Sequence[Member], plan: Arrangement) -> PinnedComposition:
    """Each adapter by the sha256 of its weights and config, the base as the plan knows it."""
    return PinnedComposition(
        base=plan.base,
        terms=tuple(
            PinnedTerm(
                ref=member.ref,
                weight=member.weight,
                sha256=member.sha256,
                commit=member.commit,
                config_sha256=member.config_sha256,
                scales=dict(member.scales) or None,
            )
            for member in members
        ),
        strategy=plan.strategy.name,
        rank=plan.limit,
        options=dict(plan.options) or None,
        searched=dict(plan.searched) or None,
        written_by=f"adapterhub {__version__}",
    )


def write_pinned(path: Path, pinned: PinnedComposition, *, overwrite: bool = False) -> Path:
    """Write `path`, or composition.toml in it if it is a folder. Raises UsageError if it exists.

    Plain folders are named relative to the file, so that both can be moved together.
    """
    target = free_file(path, overwrite=overwrite)
    terms = tuple(
        term if term.commit else replace(term, ref=_relative(term.ref, target.parent))
        for term in pinned.terms
    )
    atomic_write(target, encode_composition(replace(pinned, terms=terms)))
    return target


def free_file(path: Path, *, overwrite: bool) -> Path:
    """Where `write_pinned` would write. Raises UsageError if there is something."""
    target = path / COMPOSITION_FILE if path.is_dir() else path
    if target.exists() and not overwrite:
        raise UsageError(f"{target} already exists", hint="name another file, or add --overwrite")
    return target


def _relative(ref: str, folder: Path) -> str:
    path = Path(ref).expanduser()
    return os.path.relpath(path, folder) if path.is_dir() else ref


def reopen(
    pinned: PinnedComposition, find: Callable[[PinnedTerm], AdapterFolder]
) -> tuple[Member, ...]:
    """The members of a pinned composition. Raises IntegrityError naming the one that changed."""
    return tuple(_reopened(term, find(term)) for term in pinned.terms)


def _reopened(term: PinnedTerm, folder: AdapterFolder) -> Member:
    member = open_member(
        term.ref, folder, weight=term.weight, scales=term.scales or {}, commit=term.commit
    )
    if term.config_sha256 not in (None, member.config_sha256):
        raise IntegrityError(
            f"{term.ref} is not the adapter that was pinned: its adapter_config.json has changed",
            hint="pull the pinned revision, or pin this one: write the composition again",
        )
    if member.sha256 != term.sha256:
        name = f"{term.ref}@{term.commit[:12]}" if term.commit else term.ref
        raise IntegrityError(
            f"{name} is not the adapter that was pinned: what it holds has sha256 "
            f"{member.sha256[:12]}, not {term.sha256[:12]}",
            hint="pull the pinned revision, or pin this one: write the composition again",
        )
    return member
