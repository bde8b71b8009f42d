"""`adapterhub push`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import click

from adapterhub.cli.fetching import fetcher, transfer_bar
from adapterhub.cli.options import (
    centroid_option,
    device_option,
    dry_run_option,
    json_option,
    named_base,
)
from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import UsageError
from adapterhub.hub.client import push as push_folder
from adapterhub.hub.client import refuse_problems
from adapterhub.hub.files import workspace
from adapterhub.hub.folder import has_probe
from adapterhub.hub.home import cache_dir
from adapterhub.hub.outgoing import outgoing
from adapterhub.hub.remotes import LOCAL
from adapterhub.plugin.catalog import catalog


@click.command(short_help="Publish an adapter or a composition.")
@click.argument("source")
@click.argument("ref")
@click.option("--to", metavar="REMOTE", help="Where to; default: local.")
@click.option("-m", "--message", help="What this revision is.")
@click.option("--parent", metavar="COMMIT", help="Refuse if the newest revision is another one.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--allow", multiple=True, metavar="CODE", help="Publish in spite of this problem.")
@click.option("--base", "base_name", metavar="NAME", help="Take its probe on this base first.")
@click.option(
    "--golden", type=click.IntRange(min=1), metavar="N", help="Show N of its answers; with --base."
)
@click.option("--golden-from", metavar="FILE|TASK", help="To which rows; none it was trained on.")
@centroid_option
@device_option
@dry_run_option
@json_option
def push(
    *,
    source: str,
    ref: str,
    to: str | None,
    message: str | None,
    parent: str | None,
    allow: tuple[str, ...],
    base_name: str | None,
    golden: int | None,
    golden_from: str | None,
    centroid: str | None,
    device: str | None,
    private: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish SOURCE as REF: a folder, a composition.toml or a composition such as a/b+0.5*c/d.

    The folder is verified first; a broken adapter is not published unless --allow names the
    problem. With --base, what it does to that base is recorded in what is published: a probe, which
    whoever pulls it can hold against what it does on their machine; with --centroid, also which
    prompts it is for.
    """
    out = Output(as_json=as_json)
    name = parse_ref(ref)
    if (golden is None) != (golden_from is None) or (golden and base_name is None):
        raise UsageError(
            "golden samples need a base, a number and rows",
            hint="push DIR REF --base NAME --golden 3 --golden-from FILE|TASK",
        )
    if centroid is not None and base_name is None:
        raise UsageError(
            "a centroid is taken on a base", hint="push DIR REF --base NAME --centroid FILE|TASK"
        )
    spec = named_base(base_name)
    with ExitStack() as work:
        folder = work.enter_context(_folder(source, name, out, to=to, allow=frozenset(allow)))
        if spec is not None and not dry_run:
            from adapterhub.cli.proving import Samples, proved

            samples = Samples(golden, golden_from) if golden and golden_from else None
            folder = work.enter_context(
                proved(
                    folder, name, spec, samples, out,
                    centroid=centroid, device=device, allow=frozenset(allow),
                )
            )  # fmt: skip
        if dry_run:
            refuse_problems(folder, allow=frozenset(allow))
            sent = outgoing(folder, name=name.id)
            out.data({"ref": str(name), "files": sorted(sent.files), "skipped": sent.skipped})
            for path, found in sorted(sent.files.items()):
                out.line(f"  would send {path} ({megabytes(found.stat().st_size)})")
            return
        probed = has_probe(folder)
        with transfer_bar(out) as on_progress:
            pushed = push_folder(
                folder,
                name,
                to=to,
                message=message,
                parent=parent,
                private=private,
                allow=frozenset(allow),
                on_progress=on_progress,
            )
    out.data({"ref": str(pushed.ref), "commit": pushed.commit, "uri": pushed.uri})
    size = sum(entry.size for entry in pushed.files)
    out.line(f"{name.id}@{pushed.commit[:7]}   {len(pushed.files)} files · {megabytes(size)}")
    out.line(f"  to       {pushed.ref.remote} ({pushed.uri})")
    if not probed:
        out.say(
            "note: it has no probe, so nobody who pulls it can tell whether it does there what it "
            "does here; push with --base NAME records one"
        )
    if pushed.skipped:
        out.say(f"not sent: {', '.join(pushed.skipped)}")
    out.next(f"adapterhub pull {pushed.ref.remote}:{name.id}")


@contextmanager
def _folder(
    source: str, ref: Ref, out: Output, *, to: str | None, allow: frozenset[str]
) -> Iterator[Path]:
    """The folder to publish; a composition is written into a temporary one."""
    path = Path(source).expanduser()
    if path.is_dir() or (not path.is_file() and "+" not in source and "*" not in source):
        yield path
        return
    from adapterhub.compose.artefact import write_composition
    from adapterhub.compose.members import outline
    from adapterhub.compose.plan import settle
    from adapterhub.runtime.resolve import resolve_subject

    subject = resolve_subject(source, fetcher(out), allow=allow)
    plan = settle(
        [outline(member) for member in subject.members],
        strategy=catalog().strategies[subject.strategy],
        rank=subject.rank,
        options=subject.options,
        allow=allow,
    )
    plan = replace(plan, searched=subject.searched)
    with workspace(cache_dir() / "tmp") as work:
        folder = work / ref.name
        target = to or ref.remote or LOCAL
        write_composition(folder, subject.members, plan, name=ref.id, target=target)
        yield folder
