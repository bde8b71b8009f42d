"""Kill pull and push at every system call that touches a disk, or have that call fail; then look.

    python -m tests.bench.crashes [--step N] [--only WORDS] [--json]

After each: what is shown is the old state or the new one; every object is what its name says; the
next run succeeds; nothing is left over. Each line is a command, each figure a count of points.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import close_session

from adapterhub.cli.main import cli
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import AdapterhubError
from adapterhub.hub import client
from adapterhub.hub.home import cache_dir
from tests.adapter_files import f32, lora_tensors, write_lora
from tests.disk_state import PROJECT, State, leftovers, state, wrong_objects
from tests.hub_server import running_hub
from tests.injection import CALLS, Ended, counts, run

REF = parse_ref("user/en2ko-lora")
# The calls are the same in memory, where nobody waits for a disk.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FAULTS = (
    ("fsync", "EIO"), ("write", "ENOSPC"), ("write", "EIO"), ("openat", "EMFILE"),
    ("openat", "EACCES"), ("openat", "EROFS"), ("?mkdir", "ENOSPC"), ("?rename", "EIO"),
    ("?link", "ENOSPC"), ("?chmod", "EPERM"), ("flock", "EIO"), ("pwrite64", "ENOSPC"),
    ("ftruncate", "EIO"), ("?unlink", "EIO"), ("unlinkat", "EACCES"), ("?rmdir", "EIO"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is run, and the steps before it. `damaged`: it keeps a copy of what it repairs."""

    name: str
    words: tuple[str, ...]
    before: tuple[Callable[[], object], ...] = ()
    damaged: bool = False


@dataclass(kw_only=True)
class Tally:
    points: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def count(self, command: str, fault: str, call: str) -> None:
        row = self.points.setdefault(command, {})
        name = f"{call.strip('?')} {fault.partition('=')[2]}"
        row[name] = row.get(name, 0) + 1


def commands(adapters: Path) -> tuple[Command, ...]:
    """A command joins by a line here."""
    old, new = adapters / "old", adapters / "new"

    def push(folder: Path) -> Callable[[], object]:
        return lambda: client.push(folder, REF)

    def pull() -> object:
        return client.pull(REF.on("local"))

    local = ("pull", f"local:{REF.id}")
    synced = ("sync", "--frozen", "--into", "adapters")
    project = (
        Command(name="sync", words=synced, before=(push(old), _ask("add", *local[1:]), _forget)),
        Command(
            name="sync a newer one",
            words=(*synced, "--overwrite"),
            before=(
                push(old), _ask("add", *local[1:]), _ask(*synced), push(new), _ask("lock"), _forget,
            ),
        ),
    )  # fmt: skip
    return (
        *project,
        Command(name="pull", words=local, before=(push(old),)),
        Command(name="pull from a hub", words=("pull", f"hub:{REF.id}")),
        Command(name="pull a newer one", words=local, before=(push(old), pull, push(new))),
        Command(name="pull a repair", words=local, before=(push(old), pull, _harm), damaged=True),
        Command(name="push", words=("push", str(old), REF.id)),
        Command(name="push a newer one", words=("push", str(new), REF.id), before=(push(old),)),
        Command(
            name="push, allowed",
            words=("push", str(adapters / "idle"), REF.id, "--allow", "no-effect"),
            before=(push(old),),
        ),
    )


def write_adapters(folder: Path) -> None:
    """Two revisions that share a file, one of more than a chunk, and one that changes nothing."""
    large = lora_tensors() | {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": f32((2, 8))
    }
    for name, alpha in (("old", 4), ("new", 8)):
        (write_lora(folder / name, tensors=large, lora_alpha=alpha) / "README.md").write_text(
            "# A card\n"
        )
    idle = {name: f32((8, 2), 0.0) if "lora_B" in name else t for name, t in large.items()}
    write_lora(folder / "idle", tensors=idle)


def _harm() -> None:
    (found,) = client.installed()
    path = found.folder / "README.md"
    path.chmod(0o644)
    path.write_bytes(b"# Another\n")


class Trial:
    """One command and a home that is put back before each run of it."""

    def __init__(self, command: Command, work: Path, tally: Tally) -> None:
        self.command, self.work, self.tally = command, work, tally
        self.home, self.template = work / "home", work / "template"
        os.environ["ADAPTERHUB_HOME"] = str(self.home)
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.template, ignore_errors=True)
        self.home.mkdir()
        for step in command.before:
            step()
        self.home.rename(self.template)
        self.restore()
        _import_all(command.words)
        self.restore()
        self.old = state(self.home)
        self.harmed: list[str] = []
        self.expect(self.run(), "untouched")
        self.new = state(self.home)
        self.restore()
        with chdir(_project()):
            self.calls = counts(command.words, work)

    def restore(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.template), str(self.home)], check=True)

    def run(self, call: str = "", fault: str = "") -> Ended:
        with chdir(_project()):
            return run(self.command.words, self.work, call=call, fault=fault)

    def every(self, call: str, fault: str, step: int) -> None:
        """Have the n-th `call` go wrong, for each n that there is."""
        for point in range(1, self.calls.get(call, 0) + 1, step):
            if self.once(call, fault, point):
                self.tally.count(self.command.name, fault, call)

    def once(self, call: str, fault: str, point: int) -> bool:
        self.restore()
        self.harmed = wrong_objects(self.home)
        ended = self.run(call, f"{fault}:when={point}")
        if ended.hit is None:
            return False
        where = f"{self.command.name}: {call} {point} {fault}: {ended.hit}"
        if ended.code != -signal.SIGKILL:
            self.check(where, ended.code == 0 or ended.explained, f"said {ended.said!r}")
        seen = self.looked_at(where)
        for part, value in seen.items():
            good = (self.new[part],) if ended.code == 0 else (self.old[part], self.new[part])
            self.check(where, value in good, f"{part} neither old nor new: {value}")
        self.expect(self.run(), where)
        self.harmed = []
        self.check(where, self.looked_at(where) == self.new, "the next run made something else")
        left = leftovers(self.home, damaged=self.command.damaged)
        self.check(where, not left, f"left over: {left}")
        return True

    def looked_at(self, where: str) -> State:
        wrong = wrong_objects(self.home)
        self.check(where, set(wrong) <= set(self.harmed), f"wrong bytes: {wrong}")
        try:
            return state(self.home)
        except AdapterhubError as error:
            self.check(where, False, error.message)
            return {}

    def expect(self, ended: Ended, where: str) -> None:
        self.check(where, ended.code == 0, f"the next run ended with {ended.code}: {ended.said}")

    def check(self, where: str, good: bool, fact: str) -> None:
        if not good:
            self.tally.failures.append(f"{where}: {fact}")


def _project() -> Path:
    """The folder of the home where commands are run."""
    folder = Path(os.environ["ADAPTERHUB_HOME"]) / PROJECT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _forget() -> None:
    shutil.rmtree(cache_dir())


def _ask(*words: str) -> Callable[[], object]:
    return lambda: _import_all(words)


def _import_all(words: tuple[str, ...]) -> None:
    """Run the command here; forks find every module imported that it needed."""
    with open(os.devnull, "w") as nowhere, suppress(SystemExit), chdir(_project()):
        said, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), nowhere, nowhere
        try:
            cli.main(list(words), standalone_mode=False)
        finally:
            sys.stdout, sys.stderr = said
    close_session()


@contextmanager
def _hub_process(adapter: Path) -> Iterator[str]:
    """The address of a hub that has the adapter; a process of its own, since forks and threads do
    not go together."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with running_hub() as hub:
            hub.put(REF.id, {path.name: path.read_bytes() for path in adapter.iterdir()})
            os.write(theirs, hub.url.encode())
            signal.pause()
        os._exit(0)
    try:
        yield os.read(ours, 100).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def measure(work: Path, *, only: str, step: int, kills: bool, faults: bool) -> Tally:
    tally = Tally()
    adapters = work / "adapters"
    write_adapters(adapters)
    os.environ["ADAPTERHUB_HOME"] = str(work / "home")
    with _hub_process(adapters / "old") as url:
        os.environ["HF_ENDPOINT"] = url
        for command in commands(adapters):
            if only not in command.name:
                continue
            trial = Trial(command, work, tally)
            for call in CALLS if kills else ():
                trial.every(call, "signal=KILL", step)
            for call, code in FAULTS if faults else ():
                trial.every(call, f"error={code}", step)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--kills", action="store_true")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    both = asked.kills == asked.faults
    with tempfile.TemporaryDirectory(dir=MEMORY) as work:
        tally = measure(
            Path(work),
            only=asked.only,
            step=asked.step,
            kills=asked.kills or both,
            faults=asked.faults or both,
        )
    if asked.json:
        json.dump({"points": tally.points, "failures": tally.failures}, sys.stdout)
        return
    for name, row in tally.points.items():
        kills = sum(count for fault, count in row.items() if fault.endswith("KILL"))
        print(f"{name:18} killed {kills:4}, refused {sum(row.values()) - kills:4}")
    print(*tally.failures[:20], sep="\n")
    print(f"{len(tally.failures)} failures")
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
