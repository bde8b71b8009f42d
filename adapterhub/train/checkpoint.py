"""A run's state on disk, from which the same command goes on as if nothing had happened.

A folder beside the adapter's: one JSON file, which names the file of tensors it belongs to and
takes the place of the old one whole, so that a kill at any moment leaves one or the other. Knows
what a run has to remember; when it is written is the loop's.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapterhub.errors import FormatError, StorageError, UsageError
from adapterhub.hub.files import (
    atomic_write,
    delete_tree,
    disk,
    make_folder,
    storage_error,
    sync_file,
)
from adapterhub.hub.locks import lock
from adapterhub.train.optimizer import load_state, state_tensors
from adapterhub.train.progress import Progress, Step, copy_into

VERSION = 2
FILE = "checkpoint.json"
# By the clock: often enough that a kill costs little, seldom enough that writing does not.
SECONDS, SHARE = 300.0, 0.02


def checkpoint_folder(out: Path) -> Path:
    """Where a run into `out` keeps its checkpoint: a hidden folder beside it."""
    out = out.absolute()
    return out.with_name(f".{out.name}.checkpoint")


@dataclass(kw_only=True)
class Pace:
    """When the clock asks for a checkpoint: every five minutes, and less often where writing one
    takes so long that it would be more than a fiftieth of the run's time."""

    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    last: float = field(init=False)
    spent: float = 0.0
    longest: float = 0.0

    def __post_init__(self) -> None:
        self.began = self.last = self.clock()

    def due(self) -> bool:
        now = self.clock()
        allowed = SHARE * (now - self.began)
        return now - self.last >= SECONDS and self.spent + self.longest <= allowed

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Take the time of the block, in which a checkpoint is written."""
        start = self.clock()
        yield
        self.last = self.clock()
        self.spent += self.last - start
        self.longest = max(self.longest, self.last - start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One run's checkpoint. `identity` is what must not differ for the run to be the same: plain
    JSON values by name."""

    folder: Path
    identity: Mapping[str, Any]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process that trains into the adapter's folder; the lock goes with its
        process, however that ends.

        Raises UsageError while another one does. Where the file system has no locks, none is seen.
        """
        path = self.folder.with_suffix(".lock")

        def refuse(_: str) -> None:
            with disk("read", path):
                holder = path.read_text() or "?"
            raise UsageError(
                f"process {holder} trains into the same folder, and its state is in {self.folder}",
                hint="wait until it is done, or name another folder: -o DIR",
            )

        with lock(path, note=refuse):
            yield

    def step(self) -> int | None:
        """The step to go on from, None if there is no checkpoint. Raises UsageError for one of
        another run, naming what differs."""
        facts = self._facts()
        if facts is None:
            return None
        before, now = facts["identity"], json.loads(json.dumps(self.identity))
        for name in (*now, *before):
            if before.get(name) != now.get(name):
                raise UsageError(
                    f"{self.folder} holds an unfinished run that differs in {name}"
                    + _difference(before.get(name), now.get(name)),
                    hint="repeat that run's command, or add --restart to begin anew",
                )
        return len(facts["steps"])

    def save(self, progress: Progress, parameters: Mapping[str, Any], optimizer: Any) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        state, plain = state_tensors(optimizer)
        groups = {
            "parameter": parameters,
            "optimizer": state,
            "best": progress.best or {},
            "good": progress.good,
            "rng": progress.rng,
        }
        name = f"state-{progress.done}-{secrets.token_hex(4)}.safetensors"
        make_folder(self.folder)
        try:
            with disk("write", self.folder / name):
                save_file(_apart(groups), self.folder / name)
        except SafetensorError as error:  # as which it reports a full disk
            delete_tree(self.folder / name)
            with suppress(OSError):  # unless an earlier checkpoint is in it
                self.folder.rmdir()
            if "os error 28" in str(error):
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise storage_error(full, "write", self.folder / name) from error
            raise StorageError(
                f"cannot write {self.folder / name}: {error}", hint="free some space"
            ) from error
        sync_file(self.folder / name)
        facts = {
            "version": VERSION,
            "identity": self.identity,
            "tensors": name,
            "optimizer": plain,
            "progress": {
                "part": progress.part,
                "optimizer": progress.optimizer,
                "positions": progress.positions,
                "best_step": progress.best_step,
                "good_step": progress.good_step,
                "stale": progress.stale,
            },
            "steps": [asdict(step) for step in progress.steps],
        }
        atomic_write(self.folder / FILE, json.dumps(facts).encode())
        self._sweep(name)

    def load(self, progress: Progress, parameters: Mapping[str, Any], optimizer: Any) -> None:
        """Put everything back. Raises FormatError for files that are not whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        facts = self._facts()
        if facts is None:
            return
        path = self.folder / facts["tensors"]
        try:
            with disk("read", path):
                tensors = load_file(path)
            kinds = {
                kind: {
                    name.removeprefix(f"{kind}/"): tensor
                    for name, tensor in tensors.items()
                    if name.startswith(f"{kind}/")
                }
                for kind in ("parameter", "optimizer", "best", "good", "rng")
            }
            copy_into(parameters, kinds["parameter"])
            copy_into(progress.good, kinds["good"])
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise _broken(path) from error
        load_state(optimizer, kinds["optimizer"], facts["optimizer"])
        progress.steps = [Step(**step) for step in facts["steps"]]
        progress.best = kinds["best"] or None
        progress.rng = kinds["rng"]
        for name, value in facts["progress"].items():
            setattr(progress, name, value)

    def remove(self) -> None:
        delete_tree(self.folder)

    def _facts(self) -> Any:
        path = self.folder / FILE
        with disk("read", path):
            try:
                facts = json.loads(path.read_bytes())
            except (FileNotFoundError, NotADirectoryError):
                return None
            except ValueError as error:
                raise _broken(path) from error
        if not isinstance(facts, dict) or facts.get("version") != VERSION:
            raise _broken(path)
        return facts

    def _sweep(self, current: str) -> None:
        """Delete the tensors that no JSON names any more."""
        for path in self.folder.glob("state-*.safetensors"):
            if path.name != current:
                delete_tree(path)


def _apart(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All tensors on the CPU under one name each; none shares memory with another."""
    seen: set[int] = set()
    made = {}
    for kind, tensors in groups.items():
        for name, tensor in tensors.items():
            own = tensor.detach().cpu().contiguous()
            if own.data_ptr() in seen:
                own = own.clone()
            seen.add(own.data_ptr())
            made[f"{kind}/{name}"] = own
    return made


def _difference(before: Any, now: Any) -> str:
    plain = (str, int, float, bool)
    if isinstance(before, plain) and isinstance(now, plain) and len(f"{before}{now}") < 60:
        return f": {before} then, {now} now"
    return ""


def _broken(path: Path) -> FormatError:
    return FormatError(f"{path} is no whole checkpoint", hint="add --restart to begin anew")
