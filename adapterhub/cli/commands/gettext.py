"""`adapterhub gettext`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.options import dry_run_option, json_option
from adapterhub.cli.output import Output
from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from adapterhub.domain.gettext import Package
    from adapterhub.translation.corpus import Corpus


@click.command(short_help="Make rows of the translations that software ships.")
@click.argument("named", nargs=-1, metavar="[SOURCE]...")
@click.option("--to", "language", required=True, metavar="LANG", help="Such as ko or pt_BR.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@click.option("--hold-out", multiple=True, metavar="SOURCE", help="One to evaluate on alone.")
@click.option("--template", metavar="TEXT", help="How to ask: 'Translate to Korean: {source}'.")
@dry_run_option
@json_option
def gettext(
    *,
    named: tuple[str, ...],
    language: str,
    out: Path,
    hold_out: tuple[str, ...],
    template: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make rows of English texts and their translations from gettext catalogs (.po, .mo).

    A SOURCE is an installed Python or Debian package, a domain of /usr/share/locale, or the path of
    a wheel, zip, tar, .deb, folder or catalog: ./django.whl. OUT gets train.jsonl, held-out.jsonl
    and sources.json, which says what each row is from. Without --hold-out some catalogs are held
    out, about a tenth of all pairs.
    """
    say = Output(as_json=as_json)
    from adapterhub.translation import corpus as made
    from adapterhub.translation.languages import check_code

    check_code(language)
    if not named and not hold_out:
        raise UsageError(
            "no source is named", hint=f"adapterhub gettext django --to {language} -o {out}"
        )
    asked = made.default_template(language) if template is None else template
    made.check_template(asked)
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} is already there", hint="name another, or remove it first")
    train, held = _packages(named, hold_out, language, say)
    corpus = made.make_corpus(train, held, language=language, template=asked)
    document = made.sources(corpus)
    if not dry_run:
        _write(corpus, document, out)
    say.data({"folder": None if dry_run else str(out), **document})
    _show(document, out, say, dry_run=dry_run)
    say.next(_next(corpus, out))


def _packages(
    named: tuple[str, ...], hold_out: tuple[str, ...], language: str, say: Output
) -> tuple[list[Package], list[Package]]:
    from adapterhub.translation.sources import find_package

    with say.progress(unit="sources") as bar:
        line = bar.add_task("reading", total=len(named) + len(hold_out), note="")

        def read(source: str) -> Package:
            bar.update(line, note=source)
            found = find_package(source, language)
            bar.advance(line)
            return found

        return [read(source) for source in named], [read(source) for source in hold_out]


def _write(corpus: Corpus, document: dict[str, Any], out: Path) -> None:
    from adapterhub.hub.staging import staged_path
    from adapterhub.translation.corpus import HELD_OUT_FILE, SOURCES_FILE, TRAIN_FILE, rows

    with staged_path(out) as folder:
        folder.mkdir()
        for name, pairs in ((TRAIN_FILE, corpus.train), (HELD_OUT_FILE, corpus.held_out)):
            if pairs:
                (folder / name).write_bytes(rows(corpus, pairs))
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        (folder / SOURCES_FILE).write_text(text, encoding="utf-8")


def _show(document: dict[str, Any], out: Path, say: Output, *, dry_run: bool) -> None:
    header = ("package", "version", "licence", "catalogs", "messages", "train", "held out")
    say.table(header, [_line(package) for package in document["packages"]])
    for reason, count in document["left_out"].items():
        say.line(f"  left out {count:>7,}  {reason}")
    files = ", ".join(f"{name} {file['rows']:,}" for name, file in document["files"].items())
    say.line(f"{out}   {'would hold ' if dry_run else ''}{files} rows")
    if any(package["licence"] is None for package in document["packages"]):
        say.say("note: a package that says nothing of its licence may still have one: look there")
    if "held-out.jsonl" not in document["files"]:
        say.say("note: nothing is held out, for all is from one catalog: add --hold-out SOURCE")


def _line(package: dict[str, Any]) -> tuple[str, ...]:
    catalogs = package["catalogs"]
    return (
        package["name"],
        package["version"] or "unknown",
        package["licence"] or "unknown",
        f"{len(catalogs):,}",
        f"{package['entries']:,}",
        f"{sum(catalog['train'] for catalog in catalogs):,}",
        f"{sum(catalog['held_out'] for catalog in catalogs):,}",
    )


def _next(corpus: Corpus, out: Path) -> str:
    if corpus.train:
        return f"adapterhub train --base NAME --data {out}/train.jsonl -o NEW"
    return f"adapterhub eval REF --task {out}/held-out.jsonl"
