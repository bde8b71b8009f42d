"""Pull adapters for commands, with a bar and one line on where each came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adapterhub.cli.output import Output
from adapterhub.domain.refs import Ref
from adapterhub.hub.client import Pulled
from adapterhub.hub.client import pull as pull_ref
from adapterhub.hub.objects import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

    from adapterhub.runtime.resolve import Fetch


_WORTH_A_BAR = 1 << 20


@contextmanager
def transfer_bar(out: Output) -> Iterator[Progress]:
    """A progress callback (path, done, total) that draws one bar for each file of some size."""
    with out.progress(unit="bytes") as bar:
        lines: dict[str, TaskID] = {}

        def on_progress(path: str, done: int, total: int) -> None:
            if total < _WORTH_A_BAR:
                return
            if path not in lines:
                lines[path] = bar.add_task(path, total=total)
            bar.update(lines[path], completed=done)

        yield on_progress


def pull_with_bar(ref: Ref, out: Output) -> Pulled:
    with transfer_bar(out) as on_progress:
        return pull_ref(ref, on_progress=on_progress, note=out.say)


def fetcher(out: Output) -> Fetch:
    """How subjects get at refs: pull, and say which remote answered when none was named."""

    from adapterhub.runtime.resolve import Fetched

    def fetch(ref: Ref) -> Fetched:
        pulled = pull_with_bar(ref, out)
        if ref.remote is None and not pulled.from_cache:
            out.say(f"{ref.id} came from {pulled.remote.name} ({pulled.remote.uri})")
        return Fetched(
            folder=pulled.folder, commit=pulled.snapshot.commit, remote=pulled.remote.name
        )

    return fetch
