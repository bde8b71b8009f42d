"""A composition as something to publish: composition.toml, manifest and card in a folder.

Holds no weights; every member is named by commit and sha256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adapterhub.compose.members import Member
from adapterhub.compose.merged_folder import remembered
from adapterhub.compose.pin import pin, write_pinned
from adapterhub.compose.plan import Arrangement
from adapterhub.domain.manifest import CARD_FILE, MANIFEST_FILE
from adapterhub.errors import UsageError
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.files import atomic_write, make_folder
from adapterhub.hub.folder import infer_manifest
from adapterhub.hub.remotes import HUB


def write_composition(
    folder: Path, members: Sequence[Member], plan: Arrangement, *, name: str, target: str
) -> None:
    """Write the three files, to be published on the remote `target`.

    Raises UsageError for a member that nobody who pulls them from there could pull.
    """
    for member in members:
        if member.commit is None:
            raise UsageError(
                f"{member.ref} is a folder on this machine, which nobody else could pull",
                hint=f"publish it first: adapterhub push {member.ref} USER/NAME --to {target}",
            )
        if member.remote not in (target, HUB):
            raise UsageError(
                f"{member.ref} is on {member.remote}, where those who pull {name} from {target} "
                "do not look",
                hint=f"publish it on {target} first: adapterhub pull {member.ref}, then push it",
            )
    pinned = pin(members, plan)
    manifest = replace(infer_manifest(None, pinned), allowed=remembered(members, plan))
    write_pinned(make_folder(folder), pinned)
    atomic_write(folder / MANIFEST_FILE, encode_manifest(manifest))
    atomic_write(folder / CARD_FILE, render_card(manifest, name=name).encode())
