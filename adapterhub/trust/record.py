"""Write into a stored adapter's manifest what it does to its base now: its probe, and samples; and
what the prompts that it was trained on have in common: its centroid.

Attaches the bytes that were stored, so that what was saved wrongly is noticed where it was saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from adapterhub.domain.evaluation import Item
from adapterhub.domain.manifest import CARD_FILE, MANIFEST_FILE, Manifest
from adapterhub.errors import NoEffectError
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.files import atomic_write
from adapterhub.hub.folder import adapter_digest, read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import read_state
from adapterhub.runtime.embedding import Conversation, make_centroid
from adapterhub.runtime.engine import open_engine
from adapterhub.trust.effect import check_effect, effect_of, hear
from adapterhub.trust.golden import make_golden
from adapterhub.trust.norms import module_norms
from adapterhub.trust.probe import make_probe

SLOT = "recorded"


def record_probe(
    path: Path,
    base: Base,
    *,
    name: str,
    golden: Sequence[Item] = (),
    prompts: Sequence[Conversation] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Attach the adapter in `path`, ask it, and write manifest and card anew. `prompts` are what it
    was trained on; without any, the centroid that it has stays.

    A card that somebody wrote is left as it is. Raises NoEffectError for an adapter that changes
    nothing or is not finite, and what attaching raises; the folder is unchanged then.
    """
    folder = read_folder(path)
    state = read_state(folder)
    engine = open_engine(base)
    adapter = engine.rack.attach(SLOT, folder)
    try:
        slots = ((SLOT, 1.0),)
        heard = hear(engine, slots)
        effect = effect_of(heard)
        check_effect(effect, name)
        probe = make_probe(
            base,
            heard,
            adapter=adapter_digest(path, folder.config),
            norms=module_norms(folder, state),
            tensors=len(state),
            bound=len(state.keys() & adapter.state().keys()),
        )
        samples = make_golden(engine, slots, golden) if golden else folder.manifest.golden
        centroid = make_centroid(engine, prompts) if prompts else folder.manifest.centroid
    finally:
        engine.rack.detach(SLOT)
    if probe is None:
        raise NoEffectError(
            f"the weights of {name} are not finite", hint="its weights are broken; train it again"
        )
    if prompts and centroid is None:
        say("note: without a centroid: the base's states of its prompts are not finite, or cancel")
    manifest = replace(folder.manifest, probe=probe, golden=samples, centroid=centroid)
    card = path / CARD_FILE
    title = _title(card, folder.manifest) if card.is_file() else name
    atomic_write(path / MANIFEST_FILE, encode_manifest(manifest))
    if title is not None:
        atomic_write(card, render_card(manifest, name=title).encode())
    elif samples:
        say(f"note: {CARD_FILE} is not ours and stays as it is, without the golden samples")
    return manifest


def _title(card: Path, manifest: Manifest) -> str | None:
    """The name in a card that we rendered of this manifest; None for one that somebody wrote.

    A manifest that was read has its recipe in another order, so lines are compared in none.
    """
    text = card.read_bytes().decode(errors="replace")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    if found is None:
        return None
    ours = render_card(manifest, name=found[1])
    return found[1] if sorted(text.splitlines()) == sorted(ours.splitlines()) else None
