"""Open a base and a model that was tuned from it, to be read side by side.

Finds folders and checks that both have the same parameters; compares no values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.match import record_of
from adapterhub.errors import MismatchError, NotFoundError
from adapterhub.models.bases import list_bases
from adapterhub.models.fingerprint import fingerprint_folder
from adapterhub.models.sources import FloatFolder, open_source
from adapterhub.models.tensors import Anatomy, Tensors, anatomy, open_tensors

Say = Callable[[str], None]


@contextlib.contextmanager
def opened_base(base: str, say: Say) -> Iterator[tuple[Path, BaseRecord]]:
    """The float folder behind BASE, and what an adapter remembers of it."""
    spec = next((spec for spec in list_bases() if spec.name == base), None)
    with open_source(base if spec is None else _source_of(spec, say), say=say) as origin:
        if spec is None:
            yield origin.path, _record(origin)
            return
        content = fingerprint_folder(origin.path, content=origin.content).content
        if content != spec.fingerprint.content:
            raise MismatchError(
                f"{spec.source} is no longer what the base {spec.name} was made from",
                hint=f"compare with the weights as they are now: adapterhub extract {spec.source}",
            )
        yield origin.path, record_of(spec)


def _source_of(spec: BaseSpec, say: Say) -> str:
    """Where the base's weights came from, at the commit they came from."""
    say(
        f"comparing with the float weights of {spec.source}, from which {spec.name} was stored "
        f"as {spec.scheme}"
    )
    on_disk = Path(spec.source).expanduser()
    if on_disk.is_absolute() and not on_disk.exists():
        raise NotFoundError(
            f"the weights that {spec.name} was made from, {spec.source}, are gone",
            hint="give a folder, a GGUF file or a hub id of the same weights instead of its name",
        )
    at_hub = not on_disk.exists() and "@" not in spec.source
    return f"{spec.source}@{spec.revision}" if at_hub else spec.source


def _record(origin: FloatFolder) -> BaseRecord:
    fingerprint = fingerprint_folder(origin.path, content=origin.content)
    local = origin.revision == "local"
    return BaseRecord(
        id=origin.id,
        revision=f"sha256:{fingerprint.content}" if local else origin.revision,
        family=anatomy(origin.path).family,
        fingerprint=fingerprint,
    )


@contextlib.contextmanager
def opened_pair(base: Path, tuned: Path) -> Iterator[tuple[Anatomy, Tensors, Tensors]]:
    """What both are made of, and their tensors. Raises MismatchError unless that is the same."""
    shape, other = anatomy(base), anatomy(tuned)
    if shape.family != other.family:
        raise MismatchError(
            f"the base is a {shape.family} model and the tuned one a {other.family} model",
            hint="name the base that the tuned model was made from",
        )
    ours, theirs = shape.parameters, other.parameters
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise MismatchError(
                f"{name} is {ours.get(name, 'missing')} in the base and "
                f"{theirs.get(name, 'missing')} in the tuned model",
                hint="name the base that the tuned model was made from; a LoRA adds no tokens",
            )
    with open_tensors(base, shape) as before, open_tensors(tuned, other) as after:
        yield shape, before, after
