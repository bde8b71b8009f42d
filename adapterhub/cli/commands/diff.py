"""`adapterhub diff`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.fetching import pull_with_bar
from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import CapabilityError, MissingExtraError
from adapterhub.hub.changes import Change, FolderChanges, changes
from adapterhub.hub.folder import AdapterFolder, named_path, read_folder
from adapterhub.plugin.catalog import catalog

if TYPE_CHECKING:
    from adapterhub.compose.difference import Difference, ModuleDifference

_SHOWN = 20  # modules
_WIDTH = 60  # letters of a value


@click.command(short_help="Tell what differs between two adapters.")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@json_option
def diff(one: str, other: str, *, as_json: bool) -> None:
    """Tell what differs between the adapters A and B, each a folder, REF or REF@REVISION.

    Config and manifest key by key, files by sha256, and for each module the low-rank deltas: norms,
    effective ranks (Roy & Vetterli), principal angles, cosine and relative difference.
    """
    out = Output(as_json=as_json)
    folders = (_folder(one, out), _folder(other, out))
    changed = changes(*folders)
    found = _compared((one, other), folders)
    difference = None if isinstance(found, str) else found
    out.data(
        {
            "identical": changed.none,
            **asdict(changed),
            "tensors": _json(difference) if difference else None,
            "not_compared": found if isinstance(found, str) else None,
        }
    )
    _show_changes(changed, (one, other), out)
    if difference is None:
        out.line(f"tensors   not compared: {found}")
    else:
        _show(difference, out)
    out.next(f'adapterhub run {one} "..."')


def _folder(subject: str, out: Output) -> AdapterFolder:
    path = named_path(subject)
    return read_folder(path or pull_with_bar(parse_ref(subject), out).folder)


def _compared(
    names: tuple[str, str], folders: tuple[AdapterFolder, AdapterFolder]
) -> Difference | str:
    """The tensors' difference, or why there is none to be had."""
    for name, folder in zip(names, folders, strict=True):
        method = folder.manifest.method
        if folder.weights_path is None:
            return f"{name} has no tensors of its own ({method})"
        if method not in catalog().methods.entries:
            return f"no plugin here provides the method of {name}, {method}"
    try:
        from adapterhub.compose.difference import compare
        from adapterhub.compose.members import open_member
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"torch", "numpy"}:
            raise
        missing = MissingExtraError("models", needed_for="that")
        return f"{missing.message}: {missing.hint}"
    try:
        return compare(*(open_member(*pair) for pair in zip(names, folders, strict=True)))
    except CapabilityError as error:
        return error.message


def _json(found: Difference) -> dict[str, Any]:
    from adapterhub.compose.pairs import NEAR_DUPLICATE

    return {
        "near_duplicate": found.near_duplicate,
        "near_duplicate_bound": NEAR_DUPLICATE,
        "relative": found.relative,
        "norms": list(found.norms),
        "modules": [asdict(module) for module in found.modules],
        "left_out": [{"module": module, "reason": reason} for module, reason in found.left_out],
    }


def _show_changes(changed: FolderChanges, names: tuple[str, str], out: Output) -> None:
    parts: tuple[tuple[str, Sequence[Change]], ...] = (
        ("config", changed.config),
        ("manifest", changed.manifest),
        ("files", changed.files),
    )
    for title, rows in parts:
        if not rows:
            out.line(f"{title:<9} no difference")
            continue
        out.line(f"{title:<9} {len(rows)} different")
        out.table(("", *names), [(f"  {row.key}", _cut(row.one), _cut(row.other)) for row in rows])


def _cut(text: str) -> str:
    """A recipe's longest values would hide the rest; --json has them whole."""
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _show(found: Difference, out: Output) -> None:
    from adapterhub.compose.difference import EQUAL
    from adapterhub.compose.pairs import NEAR_DUPLICATE

    norms = " and ".join(f"{norm:.3g}" for norm in found.norms)
    count = f"{len(found.modules)} modules, norms {norms}"
    if found.modules and found.relative <= EQUAL:
        out.line(f"tensors   equal up to rounding in {count}")
    elif found.modules:
        verdict = "near-duplicates" if found.near_duplicate else "different"
        out.line(
            f"tensors   {verdict}: relative difference {found.relative:.2%} over {count} "
            f"(near-duplicates differ by {NEAR_DUPLICATE:.0%} at most)"
        )
        header = ("module", "difference", "norms", "effective ranks", "cosine", "angles")
        out.table(header, [_row(module) for module in found.modules[:_SHOWN]])
        if len(found.modules) > _SHOWN:
            out.line(f"and {len(found.modules) - _SHOWN} less different: --json has them all")
    if found.left_out:
        module, reason = found.left_out[0]
        out.line(
            f"tensors   not compared in {len(found.left_out)} modules, such as "
            f"{module or 'the whole model'}: {reason}"
        )


def _row(module: ModuleDifference) -> tuple[str, ...]:
    angles = module.angles
    return (
        module.module,
        f"{module.relative:.2%}",
        _two(module.norms, "{:.3g}"),
        _two(module.effective_ranks, "{:.2f}"),
        "-" if module.cosine is None else f"{module.cosine:+.3f}",
        f"{angles[0]:.1f}° to {angles[-1]:.1f}°" if angles else "-",
    )


def _two(values: tuple[float | None, float | None], form: str) -> str:
    return " / ".join("-" if value is None else form.format(value) for value in values)
