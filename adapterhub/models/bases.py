"""The bases on this machine: add one, list them, find the one an adapter was made for.

A base is a folder `bases/NAME` holding the stored weights, the tokenizer and `base.json`; it
appears under its name whole or not at all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adapterhub.domain.base import Alias, BaseSpec
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.match import another_base, match_base, source_of
from adapterhub.domain.quantization import Scheme
from adapterhub.errors import AdapterhubError, FormatError, NotFoundError, UsageError
from adapterhub.formats.base_spec import decode_base, encode_base
from adapterhub.hub.files import atomic_write, delete_tree, disk
from adapterhub.hub.home import bases_dir
from adapterhub.hub.staging import staged_folder

SPEC_FILE = "base.json"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def list_bases() -> list[BaseSpec]:
    """Every base here, by name. A folder without a spec is none, nor is one still being added;
    one whose spec cannot be read is left to `broken_bases`."""
    return [found for found in _entries().values() if isinstance(found, BaseSpec)]


def broken_bases() -> dict[str, AdapterhubError]:
    """Name -> what is wrong with its spec."""
    return {name: found for name, found in _entries().items() if isinstance(found, AdapterhubError)}


def _entries() -> dict[str, BaseSpec | AdapterhubError]:
    folder = bases_dir()
    if not folder.is_dir():
        return {}
    return {
        entry.name: _read(entry / SPEC_FILE)
        for entry in sorted(folder.iterdir())
        if (entry / SPEC_FILE).is_file() and not entry.name.startswith(".")
    }


def _read(file: Path) -> BaseSpec | AdapterhubError:
    """One damaged spec must not hide the others, so its error is a value here."""
    try:
        with disk("read", file):
            return decode_base(file.read_bytes(), name=str(file))
    except AdapterhubError as error:
        return error


def base_folder(name: str) -> Path:
    return bases_dir() / name


def find_base(name: str) -> BaseSpec:
    """The base called `name`. Raises NotFoundError with a did-you-mean, FormatError if broken."""
    broken = broken_bases().get(name)
    if broken is not None:
        raise FormatError(
            f"the base {name!r} is broken: {broken.message}",
            hint=f"remove it, then add it again: adapterhub base rm {name}",
        )
    bases = {spec.name: spec for spec in list_bases()}
    if name in bases:
        return bases[name]
    close = difflib.get_close_matches(name, bases, n=1)
    if close:
        hint = f"did you mean {close[0]}?"
    elif bases:
        hint = f"you have {', '.join(bases)}; add one with `adapterhub base add NAME SOURCE`"
    else:
        hint = f"add it: adapterhub base add {name} SOURCE"
    raise NotFoundError(f"no base is called {name!r} on this machine", hint=hint)


def base_for(record: BaseRecord) -> BaseSpec:
    """The base here that an adapter was made for, the same bytes before a probable match.

    Raises NotFoundError when there is none, MismatchError when one only looks like it.
    """
    judged = [(match_base(record, base), base) for base in list_bases()]
    for verdict in ("same", "probable", "by name"):
        fitting = [base for found, base in judged if found.fits and found.verdict == verdict]
        if fitting:
            return _nearest_scheme(fitting, record.scheme)
    alike = [
        (found, base)
        for found, base in judged
        if found.verdict in ("probable", "convertible")
        or base.id.casefold() == record.id.casefold()
    ]
    if alike:
        found, base = alike[0]
        raise another_base("the adapter", record, base, found)
    raise NotFoundError(
        f"the adapter's base, {record.id}, is not on this machine",
        hint=_missing_hint(record, [base for _, base in judged]),
    )


def _missing_hint(record: BaseRecord, here: list[BaseSpec]) -> str:
    """A base of an equal name but for its owner and ending is worth a look: it may be a copy."""
    add = f"add it: adapterhub base add NAME {source_of(record)}, or name another with --base"
    kin = [base for base in here if _stem(base.id) and _stem(base.id) in record.id.casefold()]
    if not kin:
        return add
    return (
        f"if {kin[0].name} is the same model: adapterhub base match {source_of(record)}; else {add}"
    )


def _stem(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _nearest_scheme(bases: list[BaseSpec], scheme: Scheme | None) -> BaseSpec:
    """Prefer the precision the adapter was trained on."""
    return next((base for base in bases if base.scheme == scheme), bases[0])


def add_base(
    name: str, source: str, scheme: Scheme, *, say: Callable[[str], None] = lambda _: None
) -> BaseSpec:
    """Quantize a source and keep it under `name`. Raises UsageError when the name is taken."""
    with staged_folder(free_base_folder(name)) as work:
        return _store(name, source, scheme, work, say=say)


def free_base_folder(name: str) -> Path:
    """Where a new base of this name will be. Raises UsageError for a bad name or a taken one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a base",
            hint="use letters, digits, '-', '_' and '.', such as phi-3-mini",
        )
    target = base_folder(name)
    if target.exists():
        raise UsageError(
            f"a base called {name!r} is already here",
            hint=f"choose another name, or remove it first: adapterhub base rm {name}",
        )
    return target


def remember_copy(base: BaseSpec, copy: Alias) -> BaseSpec:
    """From now on an adapter made for `copy` is one for this base. Returns the base as kept."""
    if copy.id.casefold() in (base.id.casefold(), base.source.casefold()) or copy in base.aliases:
        return base
    others = tuple(known for known in base.aliases if known.id.casefold() != copy.id.casefold())
    kept = replace(base, aliases=(*others, copy))
    atomic_write(base_folder(base.name) / SPEC_FILE, encode_base(kept))
    return kept


def remove_base(name: str) -> None:
    if name not in broken_bases():
        find_base(name)
    delete_tree(base_folder(name))


def _store(
    name: str, source: str, scheme: Scheme, work: Path, *, say: Callable[[str], None]
) -> BaseSpec:
    from adapterhub.models.fingerprint import fingerprint_folder
    from adapterhub.models.quiet import quiet
    from adapterhub.models.sources import open_source
    from adapterhub.models.store import check_source, describe, write_base

    with quiet(), open_source(source, say=say) as origin, disk("store", work):
        check_source(origin.path)
        say(f"storing {origin.id} as {scheme}")
        write_base(origin.path, work, scheme)
        fingerprint = fingerprint_folder(origin.path, content=origin.content)
        facts = describe(work)
        spec = BaseSpec(
            name=name,
            id=origin.id,
            source=source,
            revision=f"sha256:{fingerprint.content}"
            if origin.revision == "local"
            else origin.revision,
            scheme=scheme,
            fingerprint=fingerprint,
            note=origin.note if scheme.quantized else None,
            **facts,
        )
        atomic_write(work / SPEC_FILE, encode_base(spec))
    return spec
