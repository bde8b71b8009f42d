"""Change one byte on the way or on the disk, thousands of times; each must be found, none accepted.

    python -m tests.bench.changed_bytes [--count N] [--seed N] [--json]

Each line is where the byte lay, each figure how often it was found. On the way means the bodies of
files: what a hub says of them is protected by TLS alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import close_session

from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import IntegrityError
from adapterhub.hub import cache, client
from adapterhub.hub.home import cache_dir, registry_dir
from adapterhub.hub.objects import parts_dir
from adapterhub.hub.records import unreadable
from tests.adapter_files import write_lora
from tests.hub_server import Fault, Hub, running_hub

REF = parse_ref("user/en2ko-lora")
# The calls are the same in memory, where nobody waits for a disk.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
LOCAL, REMOTE = REF.on("local"), REF.on("hub")


@dataclass(kw_only=True)
class Found:
    """How often a byte changed in each place, and each time that it was not found."""

    counts: dict[str, int] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where bytes lie: `before` each trial, the `files` to choose from, and `found` after it."""

    name: str
    files: Callable[[], Iterable[Path]]
    found: Callable[[], bool]
    before: Callable[[], None] = lambda: None


class Bench:
    """Two revisions on a registry in a folder, the newer one on a hub as well."""

    def __init__(self, work: Path, hub: Hub, seed: int) -> None:
        self.draw, self.hub = random.Random(seed), hub
        older, newer = write_lora(work / "older"), write_lora(work / "newer", lora_alpha=8)
        for folder, text in ((older, "# Older\n"), (newer, "# Newer\n")):
            (folder / "README.md").write_text(text)
        self.good = _contents(newer)
        self.first = client.push(older, LOCAL).commit
        client.push(newer, LOCAL)
        self.commit = hub.put(REF.id, self.good)

    def places(self) -> tuple[Place, ...]:
        registry, store = registry_dir(), cache_dir()
        repo = registry / "repos" / REF.id
        objects = [registry / "objects" / d[:2] / d for d in self._published()]
        commit = (repo / "refs" / "main").read_text()
        head, first = (repo / "commits" / f"{name}.json" for name in (commit, self.first))
        old = LOCAL.at(self.first)

        def registry_place(name: str, files: Iterable[Path], ref: Ref = LOCAL) -> Place:
            found = lambda: self._refused(ref)  # noqa: E731
            return Place(name=name, files=lambda: files, found=found, before=self._forget)

        def installed(name: str, files: Callable[[], Iterable[Path]], ref: Ref = REMOTE) -> Place:
            found = lambda: self._noticed() and self._mended(ref)  # noqa: E731
            return Place(name=name, files=files, found=found, before=self._install)

        def kept(name: str, pattern: str) -> Place:
            files = lambda: sorted(store.glob(pattern))  # noqa: E731
            return Place(name=name, files=files, found=self._mended, before=self._keep_objects)

        records = lambda: store.glob("snapshots/*/*/*/*.json")  # noqa: E731
        files = lambda: sorted(store.glob("snapshots/*/*/*/*/*"))  # noqa: E731
        exact = REMOTE.at(self.commit)
        return (
            registry_place("registry: objects", objects),
            registry_place("registry: newest commit", [head]),
            registry_place("registry: older commit", [first], old),
            registry_place("registry: repository", [repo / "repo.json"]),
            registry_place("registry: main", [repo / "refs" / "main"]),
            installed("cache: installed files", files),
            installed("cache: installed files, by commit", files, exact),
            installed("cache: records", records),
            installed("cache: records, by commit", records, exact),
            kept("cache: objects", "objects/*/*"),
            kept("cache: names of git blobs", "blobs/*/*"),
        )

    def at_rest(self, count: int, tally: Found) -> None:
        places = self.places()
        for number in range(count):
            place = places[number % len(places)]
            place.before()
            path = self.draw.choice(list(place.files()))
            whole = path.read_bytes()
            position, mask = self.draw.randrange(len(whole)), self.draw.randrange(1, 256)
            _write(path, _changed(whole, position, mask))
            tally.counts[place.name] = tally.counts.get(place.name, 0) + 1
            if not place.found():
                tally.missed.append(f"{place.name}: {path.name} at {position} ^ {mask}")
            if registry_dir() in path.parents:
                _write(path, whole)

    def on_the_way(self, count: int, tally: Found) -> None:
        for _ in range(count):
            self._forget()
            path = self.draw.choice(sorted(self.good))
            position = self.draw.randrange(len(self.good[path]))
            mask = self.draw.randrange(1, 256)
            fault = Fault(kind="wrong_byte", path=f"/{path}", value=position, mask=mask)
            self.hub.faults[:] = [fault]
            name = "on the way: weights" if path.endswith("tensors") else "on the way: other files"
            tally.counts[name] = tally.counts.get(name, 0) + 1
            if not self._refused(REMOTE):
                tally.missed.append(f"{name}: {path} at {position} ^ {mask}")
            self.hub.requests.clear()
        self.hub.faults.clear()

    def _published(self) -> list[str]:
        return [str(entry.sha256) for entry in client.show(LOCAL).snapshot.files]

    def _forget(self) -> None:
        shutil.rmtree(cache_dir(), ignore_errors=True)

    def _install(self) -> None:
        shutil.rmtree(cache_dir() / "damaged", ignore_errors=True)
        client.pull(REMOTE)

    def _keep_objects(self) -> None:
        self._install()
        shutil.rmtree(cache_dir() / "snapshots")

    def _refused(self, ref: Ref) -> bool:
        """The pull says so, and leaves nothing behind that looks like an adapter."""
        try:
            client.pull(ref)
        except IntegrityError:
            parts = list(parts_dir().iterdir()) if parts_dir().is_dir() else []
            return not client.installed() and not parts
        return False

    def _noticed(self) -> bool:
        return bool(unreadable()) or any(cache.damage(item) for item in client.installed())

    def _mended(self, ref: Ref = REMOTE) -> bool:
        pulled = client.pull(ref)
        return not pulled.from_cache and _contents(pulled.folder) == self.good


def measure(work: Path, *, count: int, seed: int = 0) -> Found:
    """A third on the way, the rest at rest, in a home of its own."""
    tally = Found()
    with _hub(work / "home") as hub:
        bench = Bench(work, hub, seed)
        bench.on_the_way(count // 3, tally)
        bench.at_rest(count - count // 3, tally)
    return tally


@contextmanager
def _hub(home: Path) -> Iterator[Hub]:
    kept = dict(os.environ)
    try:
        with running_hub() as hub:
            os.environ |= {"ADAPTERHUB_HOME": str(home), "HF_ENDPOINT": hub.url}
            yield hub
    finally:
        close_session()
        os.environ.clear()
        os.environ |= kept


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _changed(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def _write(path: Path, data: bytes) -> None:
    """In place, as a disk would do it: every name of the file sees it."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY) as work:
        tally = measure(Path(work), count=asked.count, seed=asked.seed)
    if asked.json:
        json.dump({"counts": tally.counts, "missed": tally.missed}, sys.stdout)
        return
    for name, count in sorted(tally.counts.items()):
        print(f"{name:36} {count:6}")
    print(*tally.missed[:20], sep="\n")
    print(f"{len(tally.missed)} of {sum(tally.counts.values())} were missed")
    sys.exit(bool(tally.missed))


if __name__ == "__main__":
    main()
