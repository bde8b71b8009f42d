"""Is a model, wherever it lies, one of the bases on this machine?

Fingerprints first; where norms are equal, a sample of the weights decides, since a fine-tune may
share the norms. A name decides nothing. Reads a remote by ranges and stores no weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapterhub.domain.base import Alias, BaseSpec, Fingerprint, Verdict, same_base
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import CapabilityError, NotFoundError, RemovedError, UnknownRevisionError
from adapterhub.hub.locate import locate
from adapterhub.models.base_files import FolderFiles, RemoteFiles, Weights, read_weights
from adapterhub.models.bases import base_folder, list_bases, remember_copy
from adapterhub.models.fingerprint import fingerprint
from adapterhub.models.same_weights import Sampled, compare_weights
from adapterhub.models.sources import open_source

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """One base here, and what a model is to it; `is_it` when adapters for the one are adapters for
    the other, but for their layout where the verdict is `convertible`."""

    base: BaseSpec
    is_it: bool
    verdict: Verdict
    why: str


def match_source(source: str, *, say: Say) -> tuple[Alias, list[Match]]:
    """What `source` (a hub id, a ref, a folder or a GGUF file) is, and each base here judged."""
    with _open(source, say=say) as (name, revision, weights, content):
        print_ = fingerprint(weights, content=content)
        judged = [_judge(weights, print_, base) for base in list_bases()]
    judged.sort(key=lambda found: not found.is_it)
    return Alias(id=name, revision=revision, arrangement=print_.arrangement), judged


def remember(found: Match, copy: Alias) -> bool:
    """Whether it was news that `copy` is this base."""
    return remember_copy(found.base, copy) != found.base


@contextlib.contextmanager
def _open(source: str, *, say: Say) -> Iterator[tuple[str, str | None, Weights, str | None]]:
    path = Path(source).expanduser()
    if path.is_dir():
        yield str(path.absolute()), None, read_weights(FolderFiles(path)), None
    elif path.suffix == ".gguf":
        with open_source(source, say=say) as origin:
            files = FolderFiles(origin.path)
            yield str(path.absolute()), None, read_weights(files), origin.content
    else:
        ref = parse_ref(source)
        try:
            found = locate(ref)
        except (UnknownRevisionError, RemovedError):
            raise
        except NotFoundError as error:
            raise NotFoundError(
                f"no folder, GGUF file or model of the hub is called {source}",
                hint="check the name; for a private model, log in: adapterhub remote login hub",
            ) from error
        remote = RemoteFiles(found.store, found.snapshot)
        yield ref.id, found.snapshot.commit, read_weights(remote), None


def _judge(weights: Weights, print_: Fingerprint, base: BaseSpec) -> Match:
    verdict = same_base(print_, base.fingerprint)
    if verdict == "same":
        return Match(base=base, is_it=True, verdict=verdict, why="its weight files are the same")
    if verdict == "other":
        return Match(base=base, is_it=False, verdict=verdict, why="another shape and other norms")
    if verdict == "same layout":
        return Match(base=base, is_it=False, verdict=verdict, why="its norms have other values")
    try:
        stored = read_weights(FolderFiles(base_folder(base.name)))
        sampled = compare_weights(weights, stored)
    except CapabilityError as error:
        return Match(base=base, is_it=False, verdict=verdict, why=f"equal norms; {error.message}")
    return _by_sample(base, verdict, sampled, print_)


def _by_sample(base: BaseSpec, verdict: Verdict, sampled: Sampled, print_: Fingerprint) -> Match:
    if sampled.values == 0:
        why = "equal norms, but no weight that both store alike could be compared"
        return Match(base=base, is_it=False, verdict=verdict, why=why)
    if sampled.agree:
        why = (
            f"equal norms, and {sampled.values:,} sampled weights agree within rounding "
            f"(at most {sampled.worst:.2f} of the format's error bound)"
        )
        if verdict == "convertible":
            why += f"; its layers are {print_.arrangement}, here {base.fingerprint.arrangement}"
        return Match(base=base, is_it=True, verdict=verdict, why=why)
    why = (
        f"equal norms, but {sampled.outside:,} of {sampled.values:,} sampled weights differ by "
        "more than rounding: a fine-tune, or quantized twice"
    )
    return Match(base=base, is_it=False, verdict="same layout", why=why)
