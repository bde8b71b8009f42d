"""A composition as something to publish: composition.toml, manifest and card in a folder.

Holds no weights; every member is named by commit and sha256.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapterhub.compose.members import Member
from adapterhub.compose.pin import pin, write_pinned
from adapterhub.compose.plan import Plan
from adapterhub.domain.manifest import CARD_FILE, MANIFEST_FILE
from adapterhub.errors import UsageError
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.files import atomic_write, make_folder
from adapterhub.hub.folder import infer_manifest


def write_composition(folder: Path, members: Sequence[Member], plan: Plan, *, name: str) -> None:
    """Write the three files. Raises UsageError for a member that only this machine has."""
    for member in members:
        if member.commit is None:
            raise UsageError(
                f"{member.ref} is a folder on this machine, which nobody else could pull",
                hint=f"publish it first: adapterhub push {member.ref} USER/NAME",
            )
    pinned = pin(members, plan)
    manifest = infer_manifest(None, pinned)
    write_pinned(make_folder(folder), pinned)
    atomic_write(folder / MANIFEST_FILE, encode_manifest(manifest))
    atomic_write(folder / CARD_FILE, render_card(manifest, name=name).encode())
