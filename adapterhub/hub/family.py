"""Follow an adapter back to what it was made from, as far as this machine and its remotes know.

Reads manifests, configs and sizes alone: no weights are fetched. What cannot be found is a value,
so that one lost parent hides no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from adapterhub.domain.composition import PinnedComposition
from adapterhub.domain.digest import digest_of
from adapterhub.domain.lineage import Origin, origins
from adapterhub.domain.manifest import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE, Manifest
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import AdapterhubError, NotFoundError, RemoteError
from adapterhub.formats.adapter_config import decode_config
from adapterhub.formats.composition_file import decode_composition
from adapterhub.formats.manifest import decode_manifest
from adapterhub.hub.client import chosen, show
from adapterhub.hub.files import digests
from adapterhub.hub.folder import infer_manifest, named_path, read_folder
from adapterhub.hub.records import Cached

MOST = 100  # adapters that are looked up: a manifest may name any number, and so may those


@dataclass(frozen=True, kw_only=True, slots=True)
class Kin:
    """One of the family. `origin` is what the one made from it says of it, None for the one that
    was asked for; `sha256` is that of its weights (or config) as found here, `unknown` why nothing
    is known of it. A `repeated` one has its own origins where it first stands."""

    name: str
    origin: Origin | None = None
    manifest: Manifest | None = None
    commit: str | None = None
    sha256: str | None = None
    unknown: str | None = None
    repeated: bool = False
    origins: tuple[Kin, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """Whether it still is what was recorded; None where one side is not known."""
        recorded = self.origin.sha256 if self.origin else None
        if recorded is None or self.sha256 is None:
            return None
        return recorded == self.sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What an adapter says of itself, and where: a folder of this machine's owner, or a remote."""

    key: str
    manifest: Manifest
    composition: PinnedComposition | None
    sha256: str | None
    commit: str | None = None
    folder: Path | None = None
    remote: str | None = None


def family(text: str) -> Kin:
    """Of a folder, a ref or a composition.toml. Raises what reading or asking for it raises; of
    those it was made from, nothing is raised."""
    search = _Search()
    return search.kin(text, None, search.asked(text))


@dataclass(slots=True)
class _Search:
    seen: set[str] = field(default_factory=set)
    asked_for: int = 0

    def asked(self, text: str) -> _Found:
        path = named_path(text)
        if path is None:
            return _published(parse_ref(text))
        return _composition(path) if path.suffix == ".toml" else _stored(path)

    def kin(self, name: str, origin: Origin | None, found: _Found) -> Kin:
        repeated = found.key in self.seen
        self.seen.add(found.key)
        named = () if repeated else origins(found.manifest, found.composition)
        return Kin(
            name=name,
            origin=origin,
            manifest=found.manifest,
            commit=found.commit,
            sha256=found.sha256,
            repeated=repeated,
            origins=tuple(self._origin(item, found) for item in named),
        )

    def _origin(self, origin: Origin, child: _Found) -> Kin:
        if not origin.is_adapter:
            return Kin(name=origin.ref, origin=origin)
        self.asked_for += 1
        if self.asked_for > MOST:
            reason = f"not looked up, as there are more than {MOST}"
            return Kin(name=origin.ref, origin=origin, unknown=reason)
        try:
            found = _locate(origin, child)
        except AdapterhubError as error:
            return Kin(name=origin.ref, origin=origin, unknown=error.message)
        return self.kin(origin.ref, origin, found)


def _locate(origin: Origin, child: _Found) -> _Found:
    path = _beside(origin.ref, child)
    if path is not None:
        return _stored(path)
    if named_path(origin.ref) is not None or "/" not in origin.ref:
        raise NotFoundError("a folder of whoever made it", hint="ask for it")
    ref = parse_ref(origin.ref)
    exact = ref.at(origin.commit) if origin.commit else ref
    if origin.sha256 and not origin.commit:
        # The revision that was meant, where it is here, before whatever is newest now.
        meant = [item for item in chosen(ref) if _weights_sha256(item) == origin.sha256]
        if meant:
            return _cached(meant[-1])
    try:
        return _asked_beside(exact, child)
    except RemoteError:
        kept = chosen(exact)
        if not kept:
            raise
        return _cached(max(kept, key=lambda item: item.pulled))


def _beside(ref: str, child: _Found) -> Path | None:
    """A folder that the owner of this machine named. One that a stranger names means nothing here,
    and is not looked for."""
    if child.folder is None:
        return None
    path = named_path(ref) or Path(ref)
    places = (child.folder / path, path, child.folder.parent / path)
    return next((place for place in places if place.is_dir()), None)


def _asked_beside(ref: Ref, child: _Found) -> _Found:
    """Where the child came from first, then as a pull would."""
    if child.remote and ref.remote is None:
        try:
            return _published(ref.on(child.remote))
        except NotFoundError:
            pass
    return _published(ref)


def _stored(path: Path) -> _Found:
    folder = read_folder(path)
    sha256 = None
    if folder.weights_path is not None:
        sha256 = digests(folder.weights_path).sha256
    elif folder.config is not None:
        sha256 = digest_of(dict(folder.config))
    return _Found(
        key=str(path.resolve()),
        manifest=folder.manifest,
        composition=folder.composition,
        sha256=sha256,
        folder=path,
    )


def _composition(path: Path) -> _Found:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint="check the path")
    composition = decode_composition(path.read_bytes(), name=path.name)
    return _Found(
        key=str(path.resolve()),
        manifest=infer_manifest(None, composition),
        composition=composition,
        sha256=None,
        folder=path.parent,
    )


def _cached(item: Cached) -> _Found:
    folder = read_folder(item.folder)
    config = None if folder.config is None else digest_of(dict(folder.config))
    return _Found(
        key=f"{item.uri} {item.ref.id} {item.commit}",
        manifest=folder.manifest,
        composition=folder.composition,
        sha256=_weights_sha256(item) or config,
        commit=item.commit,
        remote=item.ref.remote,
    )


def _published(ref: Ref) -> _Found:
    """What a remote says of it, without its weights."""
    shown = show(ref)
    if shown.installed is not None:
        return _cached(shown.installed)
    documents = shown.documents
    config = decode_config(documents[CONFIG_FILE]) if CONFIG_FILE in documents else None
    told = documents.get(MANIFEST_FILE)
    weights = [entry for entry in shown.snapshot.files if entry.path == WEIGHTS_FILE]
    sha256 = None if config is None else digest_of(dict(config))
    return _Found(
        key=f"{shown.remote.uri} {shown.ref.id} {shown.snapshot.commit}",
        manifest=infer_manifest(config, None) if told is None else decode_manifest(told),
        composition=None,
        sha256=weights[0].sha256 if weights else sha256,
        commit=shown.snapshot.commit,
        remote=shown.remote.name,
    )


def _weights_sha256(item: Cached) -> str | None:
    return next((entry.sha256 for entry in item.files if entry.path == WEIGHTS_FILE), None)
