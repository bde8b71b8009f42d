"""What a home shows of adapters, whether its objects are what they are called, what is left over.

Test equipment: looks at files and asks the hub's readers; changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import AdapterhubError
from adapterhub.hub import cache
from adapterhub.hub.records import record_path
from adapterhub.hub.stores.directory import DirectoryStore

Contents = tuple[tuple[str, str], ...]  # (path, sha256) of each file
State = dict[str, tuple[tuple[str, ...], ...]]
PROJECT = "project"  # a folder in the home, so that it is put back with it
_WORK = ("tmp", "parts", "locks", "damaged")


def state(home: Path) -> State:
    """Every revision that is published, every adapter that is installed, and what a project has,
    each with its files and their digests. Raises AdapterhubError for what cannot be read."""
    store = DirectoryStore((home / "registry").as_uri())
    published = [
        (name, str(depth), *_texts(files))
        for name in store.names()
        for depth, files in enumerate(_history(store, parse_ref(name)))
    ]
    installed = [
        (item.ref.id, item.ref.remote or "", *_texts(_contents(item.folder)))
        for item in cache.cached()
        if cache.damage(item) is None
    ]
    project = home / PROJECT
    own = [path for path in _of_the_project(home) if path.parent == project and path.is_file()]
    folders = [path for path in sorted(project.glob("*/*")) if path.name[0] != "."]
    return {
        "published": tuple(sorted(published)),
        "installed": tuple(sorted(installed)),
        "files": tuple((path.name, sha256_hex(path.read_bytes())) for path in own),
        "folders": tuple((path.name, *_texts(_contents(path))) for path in folders),
    }


def wrong_objects(home: Path) -> list[str]:
    """Objects of the cache and the registry whose bytes are not those of their names."""
    paths = [*home.glob("cache/objects/*/*"), *home.glob("registry/objects/*/*")]
    named = [path for path in paths if not path.name.startswith(".")]
    return [str(path) for path in named if sha256_hex(path.read_bytes()) != path.name]


def leftovers(home: Path, *, damaged: bool = False) -> list[str]:
    """Files that no adapter needs, and folders that somebody worked in. What was found damaged is
    kept on purpose."""
    needed = {*_of_the_cache(home), *_of_the_registry(home), *_of_the_project(home)}
    found = [path for path in home.rglob("*") if path not in needed]
    left = [path for path in found if path.is_file() or path.parent.name in _WORK]
    kept = home / "cache" / "damaged"
    return [str(p.relative_to(home)) for p in left if not (damaged and kept in p.parents)]


def _of_the_project(home: Path) -> Iterator[Path]:
    """Its two files and its folders of adapters; nothing that is hidden belongs there."""
    yield from (home / PROJECT / name for name in ("adapters.lock", "adapters.toml"))
    yield from (home / PROJECT).glob("[!.]*/[!.]*/*")


def _of_the_cache(home: Path) -> Iterator[Path]:
    folder = home / "cache"
    for item in cache.cached():
        yield record_path(item.folder)
        for entry in item.files:
            yield item.folder / entry.path
            yield folder / "objects" / str(entry.sha256)[:2] / str(entry.sha256)
            blob = str(entry.git_blob)
            yield folder / "blobs" / blob[:2] / blob


def _of_the_registry(home: Path) -> Iterator[Path]:
    folder = home / "registry"
    store = DirectoryStore(folder.as_uri())
    for name in store.names():
        repo = folder / "repos" / name
        yield from (repo / "repo.json", repo / "refs" / "main")
        ref = parse_ref(name)
        commit: str | None = None
        while True:
            snapshot = store.resolve(ref if commit is None else ref.at(commit))
            yield repo / "commits" / f"{snapshot.commit}.json"
            for entry in snapshot.files:
                yield folder / "objects" / str(entry.sha256)[:2] / str(entry.sha256)
            commit = snapshot.parent
            if commit is None:
                break


def _history(store: DirectoryStore, ref: Ref) -> Iterator[Contents]:
    """From the newest revision to the first."""
    commit: str | None = None
    while True:
        snapshot = store.resolve(ref if commit is None else ref.at(commit))
        data = {e.path: b"".join(store.read(snapshot, e.path)) for e in snapshot.files}
        wrong = [e.path for e in snapshot.files if sha256_hex(data[e.path]) != e.sha256]
        if wrong:
            raise AdapterhubError(f"{ref.id}: {wrong} are not what was published")
        yield tuple((path, sha256_hex(content)) for path, content in sorted(data.items()))
        commit = snapshot.parent
        if commit is None:
            return


def _contents(folder: Path) -> Contents:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return tuple((p.relative_to(folder).as_posix(), sha256_hex(p.read_bytes())) for p in files)


def _texts(files: Contents) -> tuple[str, ...]:
    return tuple(f"{path} {digest}" for path, digest in files)
