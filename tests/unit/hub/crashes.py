"""Run pulls and pushes in children that are killed at their n-th file operation.

A program of its own, because it forks: the tests start it and read the failures it prints.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub  # noqa: F401  (before the forks, not once in each)

from adapterhub.domain.refs import parse_ref
from adapterhub.hub import cache, client
from adapterhub.hub.stores.directory import DirectoryStore
from adapterhub.plugin.catalog import catalog
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")
_COUNTED = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")


def killed(action: Callable[[], object], point: int) -> bool:
    """True when a child running `action` got as far as its `point`-th file operation."""
    child = os.fork()
    if child == 0:
        _arm(point)
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _arm(point: int) -> None:
    home = os.environ["ADAPTERHUB_HOME"]
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event in _COUNTED and str(args[0]).startswith(home):
            seen += 1
            if seen == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def pull_once(remote: str, expected: Path, point: int) -> list[str]:
    """Kill a first pull, then look: nothing damaged is shown, and the next pull succeeds."""
    if not killed(lambda: client.pull(REF.on(remote)), point):
        return ["done"]
    problems = [f"damaged: {found}" for item in client.installed() if (found := cache.damage(item))]
    pulled = client.pull(REF.on(remote))
    if contents(pulled.folder) != contents(expected):
        problems.append("the next pull brought something else")
    return problems


def pull_next(old: Path, new: Path, point: int) -> list[str]:
    """Kill a pull of a second revision: the first is whole throughout."""
    client.push(old, REF)
    first = client.pull(REF)
    client.push(new, REF)
    if not killed(lambda: client.pull(REF), point):
        return ["done"]
    problems = [] if contents(first.folder) == contents(old) else ["the old revision is harmed"]
    problems += [f"damaged: {bad}" for item in client.installed() if (bad := cache.damage(item))]
    if contents(client.pull(REF).folder) != contents(new):
        problems.append("the next pull brought something else")
    return problems


def push_next(old: Path, new: Path, point: int) -> list[str]:
    """Kill a push: the registry shows the old revision or the new one, whole."""
    client.push(old, REF)
    if not killed(lambda: client.push(new, REF), point):
        return ["done"]
    store = catalog().open_store((Path(os.environ["ADAPTERHUB_HOME"]) / "registry").as_uri())
    assert isinstance(store, DirectoryStore)
    snapshot = store.resolve(REF)
    shown = {entry.path: b"".join(store.read(snapshot, entry.path)) for entry in snapshot.files}
    problems = [] if shown in (contents(old), contents(new)) else ["half a state is shown"]
    client.push(new, REF)
    if contents(client.pull(REF).folder) != contents(new):
        problems.append("the next push did not arrive")
    return problems


def main() -> None:
    """crashes.py SCENARIO HOMES FIRST LAST STEP OLD NEW [REMOTE]"""
    scenario, homes, first, last, step, old, new, *remote = sys.argv[1:]
    failures: dict[int, list[str]] = {}
    reached = 0
    for point in range(int(first), int(last) + 1, int(step)):
        os.environ["ADAPTERHUB_HOME"] = str(Path(homes) / str(point))
        if scenario == "pull":
            problems = pull_once(remote[0], Path(new), point)
        else:
            run = pull_next if scenario == "pull-next" else push_next
            problems = run(Path(old), Path(new), point)
        if problems == ["done"]:
            break
        reached = point
        if problems:
            failures[point] = problems
    json.dump({"reached": reached, "failures": failures}, sys.stdout)


if __name__ == "__main__":
    main()
