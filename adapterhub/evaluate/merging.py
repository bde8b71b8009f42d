"""A whole merge: adapters and their base in, a plain model out, and what that lost measured.

What is written is staged beside its place and measured there, so that a merge that fails anywhere
leaves nothing.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterhub import __version__
from adapterhub.compose.foldable import check_declared, check_sum, foldable
from adapterhub.compose.members import Member, PatchStream, open_patches
from adapterhub.compose.merged_folder import parents_of
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.evaluation import TaskData
from adapterhub.domain.manifest import CARD_FILE, MANIFEST_FILE, MERGED, Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.quantization import Scheme, scheme_by_name
from adapterhub.errors import UsageError
from adapterhub.evaluate.merge_loss import (
    Attached,
    Form,
    Text,
    measure_attached,
    measure_written,
    table_of,
)
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.merged_card import render_merged_card
from adapterhub.hub.files import atomic_write, disk, make_folder
from adapterhub.hub.staging import staged_path
from adapterhub.models.bases import base_folder, free_base_folder
from adapterhub.models.fold import Part
from adapterhub.models.loader import Base, best_device, check_device, load_folder
from adapterhub.models.mapped import mapped_base
from adapterhub.models.memory import available_bytes, dense_fits
from adapterhub.models.merged_model import FLOATS, Written, note_base, write_merged_model
from adapterhub.models.quiet import quiet
from adapterhub.models.store import write_base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack
from adapterhub.runtime.engine import ReferenceEngine, open_engine
from adapterhub.runtime.subjects import Subject, attach_subject, weights_on
from adapterhub.trust.attached import check_members

INTO = (*FLOATS, "nf4")
# What is quantized is what a merged model in half precision holds, as others would quantize it.
_BEFORE_QUANTIZING = "bf16"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to merge, into which of INTO, and where it goes: a folder `out`, a base called `name`,
    or both. `measure` says whether, `tasks` and `texts` on what beside the probe's prompts."""

    subject: Subject
    base: BaseSpec
    into: str
    out: Path | None = None
    name: str | None = None
    measure: bool = True
    tasks: tuple[TaskData, ...] = ()
    texts: tuple[Text, ...] = ()
    device: str | None = None
    allow: frozenset[str] = frozenset()

    @property
    def scheme(self) -> Scheme | None:
        """That of a base that keeps the result; None where bases have none of its precision."""
        return None if self.into in ("fp16", "float32") else scheme_by_name(self.into)

    @property
    def quantizes(self) -> bool:
        return self.into not in FLOATS


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`forms` are empty where nothing was measured, the adapters attached first of them."""

    places: tuple[Path, ...]
    manifest: Manifest
    written: Written
    bytes: int
    forms: tuple[Form, ...]
    seconds: float


def merge_model(
    order: Order,
    *,
    say: Callable[[str], None] = lambda _: None,
    on_tensor: Callable[[int, int], None] = lambda _done, _total: None,
) -> Outcome:
    """Raises CapabilityError for what is no change of weights, UsageError for a place that is taken
    or a precision that no base has, MismatchError for adapters of another base, and what attaching
    raises."""
    started = time.perf_counter()
    subject = order.subject
    check_sum(subject.name, strategy=subject.strategy, members=len(subject.members))
    for member in subject.members:
        check_declared(member.ref, catalog().method_for(member.folder.manifest))
    places = _places(order)
    if order.measure:
        check_device(order.device or best_device())
        _check_memory(order)
    with ExitStack() as stack:
        stages = [stack.enter_context(staged_path(place)) for place in places]
        first = make_folder(stages[0])
        # Beside what is staged, and so gone with it.
        floats = make_folder(first.parent / "float") if order.quantizes else first
        written = _write(order, floats, on_tensor=on_tensor)
        if order.quantizes:
            say(f"quantizing the merged weights as {order.scheme}")
            with quiet():
                write_base(floats, first, scheme_by_name(order.into))
        forms = tuple(_measured(order, floats, first, say=say)) if order.measure else ()
        manifest = _describe(order, first, forms)
        for stage in stages[1:]:
            make_folder(stage)
            for file in sorted(first.iterdir()):
                # No link: a base must not change with a folder that somebody edits.
                with disk("write", stage / file.name):
                    shutil.copyfile(file, stage / file.name)
        if order.name is not None and order.scheme is not None:
            note_base(
                stages[-1],
                order.name,
                floats=floats,
                scheme=order.scheme,
                source=f"{subject.title} merged into {order.base.name}",
                note=_note(order),
            )
        size = sum(file.stat().st_size for file in first.glob("*.safetensors"))
    return Outcome(
        places=places,
        manifest=manifest,
        written=written,
        bytes=size,
        forms=forms,
        seconds=time.perf_counter() - started,
    )


def _places(order: Order) -> tuple[Path, ...]:
    """Where the result goes, a base's folder last."""
    places = [] if order.out is None else [order.out]
    if order.name is not None:
        if order.scheme is None:
            raise UsageError(
                f"no base is kept in {order.into}", hint="--into bf16 or nf4, or -o DIR alone"
            )
        if order.name.casefold() == order.base.id.casefold():
            raise UsageError(
                f"{order.name} is what the base itself is known by, and this is another model",
                hint=f"choose another name, such as {order.base.name}-merged",
            )
        places.append(free_base_folder(order.name))
    if not places:
        raise UsageError("it is not said where the model goes", hint="-o DIR, --name NAME or both")
    return tuple(places)


def _check_memory(order: Order) -> None:
    device = order.device or best_device()
    count = order.base.parameters
    if device == "cpu" and not dense_fits(
        count, bytes_per_parameter=4, available=available_bytes()
    ):
        raise UsageError(
            f"to measure, {order.base.name} is loaded in float32, which takes "
            f"{4 * count / 1e9:.1f} GB and does not fit",
            hint="--no-measure writes it unmeasured; --device cuda measures on a GPU",
        )


def _write(order: Order, out: Path, *, on_tensor: Callable[[int, int], None]) -> Written:
    into = _BEFORE_QUANTIZING if order.quantizes else order.into
    with mapped_base(order.base) as base, ExitStack() as files:
        # As for a run: what does not fit, does not stack or has no such weight is refused by name.
        rack = Rack(base)
        attach_subject(rack, order.subject)
        for slot in list(rack.attached):
            rack.detach(slot)
        parts = [
            part
            for member in order.subject.members
            for part in _parts(member, base, files.enter_context(open_patches(member, base)))
        ]
        return write_merged_model(base, parts, out, into=into, on_tensor=on_tensor)


def _parts(member: Member, base: Base, stream: PatchStream) -> list[Part]:
    """Its patches with what they weigh, apart where its modules weigh differently."""
    patches = list(foldable(member.ref, stream.rest()))
    if not member.scales:
        return [(patches, member.weight)]
    weights = weights_on(base, member)
    return [([(name, patch)], weights[name]) for name, patch in patches if weights[name]]


# --- what it lost -----------------------------------------------------------------------------


def _measured(
    order: Order, floats: Path, quantized: Path, *, say: Callable[[str], None]
) -> Iterator[Form]:
    """One model in memory at a time."""
    say("measuring the adapters attached, in float32")
    attached = _attached(order, say=say)
    yield attached.form
    plain = _BEFORE_QUANTIZING if order.quantizes else order.into
    forms = [(f"merged, {plain}", floats, scheme_by_name("bf16"))]
    if order.quantizes:
        forms.append((f"merged, then {order.into}", quantized, scheme_by_name(order.into)))
    for name, folder, scheme in forms:
        say(f"measuring what was written: {name}")
        with _engine(order, folder, replace(order.base, scheme=scheme)) as engine:
            yield measure_written(engine, attached, name, tasks=order.tasks, texts=order.texts)


def _attached(order: Order, *, say: Callable[[str], None]) -> Attached:
    with _engine(order, base_folder(order.base.name), order.base) as engine:
        slots = attach_subject(engine.rack, order.subject)
        check_members(engine, order.subject.members, allow=order.allow, say=say)
        return measure_attached(engine, slots, tasks=order.tasks, texts=order.texts)


@contextmanager
def _engine(order: Order, folder: Path, spec: BaseSpec) -> Iterator[ReferenceEngine]:
    """Over the model in a folder, in float32. Its memory is free again afterwards."""
    device = order.device or best_device()
    base = load_folder(folder, spec, device=device, dense=True, dtype="float32")
    try:
        yield open_engine(base)
    finally:
        del base
        # A base and its sites name each other.
        gc.collect()


# --- what is said of it -----------------------------------------------------------------------


def _describe(order: Order, folder: Path, forms: Sequence[Form]) -> Manifest:
    """Manifest and card."""
    manifest = Manifest(
        method=MERGED,
        config_version=1,
        base=record_of(order.base),
        parents=parents_of(order.subject.members),
        strategy=order.subject.strategy,
        recipe={
            "into": order.into,
            "note": _note(order),
            "measured": [form.to_json() for form in forms],
        },
        allowed=tuple(
            sorted(order.allow.union(*(m.folder.manifest.allowed for m in order.subject.members)))
        ),
        written_by=f"adapterhub {__version__}",
    )
    title = order.name if order.out is None else order.out.absolute().name
    card = render_merged_card(manifest, name=title or "", forms=table_of(forms))
    atomic_write(folder / MANIFEST_FILE, encode_manifest(manifest))
    atomic_write(folder / CARD_FILE, card.encode())
    return manifest


def _note(order: Order) -> str:
    said = []
    if order.base.scheme.quantized:
        said.append(
            f"the base holds {order.base.scheme.name} weights, and what was merged is what these "
            "bits stand for, not the weights that they were made from"
        )
    if order.quantizes:
        said.append("the merged weights were rounded to bf16 and quantized again")
    return "; ".join(said)


def parents_json(manifest: Manifest) -> list[dict[str, Any]]:
    return [{"ref": p.ref, "weight": p.weight, "sha256": p.sha256} for p in manifest.parents]
