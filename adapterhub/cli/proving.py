"""Record what an adapter does to its base in a copy of its folder, to be published."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from adapterhub.cli.output import Output
from adapterhub.domain.refs import Ref
from adapterhub.errors import AdapterhubError, UsageError
from adapterhub.formats.recipe_file import RECIPE_FILE, decode_recipe
from adapterhub.hub.claims import STALE_PROBE
from adapterhub.hub.client import refuse_problems
from adapterhub.hub.files import link_or_copy, make_folder
from adapterhub.hub.folder import read_folder
from adapterhub.hub.outgoing import outgoing

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec
    from adapterhub.domain.evaluation import Item
    from adapterhub.hub.folder import AdapterFolder
    from adapterhub.runtime.embedding import Conversation


@dataclass(frozen=True, slots=True)
class Samples:
    """How many golden samples are wanted, and from which rows."""

    count: int
    source: str


@contextmanager
def proved(
    folder: Path,
    ref: Ref,
    spec: BaseSpec,
    samples: Samples | None,
    out: Output,
    *,
    centroid: str | None = None,
    device: str | None,
    allow: frozenset[str],
) -> Iterator[Path]:
    """A copy of `folder` whose manifest has a new probe, taken on the base, and a new centroid of
    the rows that are named, if any are; the folder is left as it is. A composition has none of its
    own, and is refused."""
    refuse_problems(folder, allow=allow | {STALE_PROBE})
    stored = read_folder(folder)
    if stored.composition is not None:
        raise UsageError(
            f"{folder.name} is a composition, whose members have probes of their own",
            hint="leave --base out",
        )
    from adapterhub.cli.workbench import check_made_for

    check_made_for(folder.name, stored.manifest.base, spec, out, allow=allow)
    items = _items(stored, samples, out) if samples else []
    prompts = prompts_of(centroid)
    from adapterhub.models.loader import load_base
    from adapterhub.trust.record import record_probe

    with TemporaryDirectory(prefix="adapterhub-push-") as work:
        copy = Path(work) / ref.name
        for path, source in outgoing(folder, name=ref.id).files.items():
            make_folder((copy / path).parent)
            link_or_copy(source, copy / path)
        base = load_base(spec, device=device)
        name = folder.absolute().name
        made = record_probe(copy, base, name=name, golden=items, prompts=prompts, say=out.say)
        if made.probe is not None:
            out.say(f"probe: logits change by {made.probe.relative:.1%} on {spec.name}")
        yield copy


def prompts_of(source: str | None) -> list[Conversation]:
    """The conversations before each answer; none where no rows are named."""
    if source is None:
        return []
    from adapterhub.train.data import load_items

    return [item.messages for _, item in load_items(source, seed=0, option="--centroid")[0]]


def record_effect(
    folder: Path,
    spec: BaseSpec,
    out: Output,
    *,
    device: str | None,
    prompts: Sequence[Conversation] = (),
) -> None:
    """Write into the manifest of an adapter that was made just now what it does to its base. Where
    that cannot be found out the adapter stays as it is, which is said aloud."""
    try:
        from adapterhub.models.loader import load_base
        from adapterhub.train.proof import prove

        base = load_base(spec, device=device)
    except ImportError:
        out.say(f"note: saved without a probe: {spec.name} cannot be loaded here")
        return
    except AdapterhubError as error:
        out.say(f"note: saved without a probe: {error.message}")
        return
    made = read_folder(folder).manifest
    name = folder.absolute().name
    prove(folder, base, made, name=name, golden=(), prompts=prompts, say=out.say)


def _items(stored: AdapterFolder, samples: Samples, out: Output) -> list[Item]:
    from adapterhub.train.data import EVAL_ROWS, held_out_items, load_eval_items
    from adapterhub.trust.golden import golden_items

    items = held_out_items(samples.source, EVAL_ROWS, seed=0)
    sha256 = None
    if not items:
        rows, sha256, _ = load_eval_items(samples.source, seed=0, trained=[])
        items = [item for _, item in rows]
    if sha256 is not None and sha256 == stored.manifest.data_sha256:
        raise UsageError(
            f"{samples.source} holds the rows that it was trained on",
            hint="golden samples are of other rows: --golden-from FILE|TASK",
        )
    trained_on = _trained_on(stored)
    if trained_on is None:
        out.say("note: the rows it was trained on are not here; that these are others is your word")
    return golden_items(items, samples.count, trained_on=trained_on or ())


def _trained_on(stored: AdapterFolder) -> Collection[str] | None:
    """Digests of the rows it was trained on, where its recipe finds the very same again."""
    from adapterhub.train.data import load_items
    from adapterhub.trust.golden import conversation_digest

    path = stored.path / RECIPE_FILE
    if not path.is_file():
        return None
    try:
        recipe = decode_recipe(path.read_bytes(), name=path.name)
        rows, sha256 = load_items(recipe.data, seed=recipe.seed)
    except AdapterhubError:
        return None
    if sha256 != stored.manifest.data_sha256:
        return None
    return {conversation_digest(item.messages) for _, item in rows}
