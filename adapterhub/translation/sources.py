"""Find the catalogs of one language in what a person names: a package, an archive, a folder.

Reads and decodes; whether a translation is any good is not known here.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from adapterhub.domain.gettext import Catalog, Package
from adapterhub.errors import FormatError, MismatchError, NotFoundError, UsageError
from adapterhub.formats.mo_catalog import decode_mo
from adapterhub.formats.po_catalog import MAX_BYTES, decode_po
from adapterhub.hub.files import disk, read_bytes
from adapterhub.translation.archives import is_archive, read_archive
from adapterhub.translation.debian import SYSTEM, debian_files
from adapterhub.translation.languages import is_code, languages_of, normal, same_language
from adapterhub.translation.package_facts import Facts, debian_facts, python_facts

_NAMES = (
    "name an installed Python or Debian package, a domain of /usr/share/locale, or a path: "
    "./django.whl, ./folder"
)
_CATALOGS = (".po", ".mo")

# Path inside a package -> its bytes, or where they are on this disk.
Files = Mapping[str, bytes | Path]


def find_package(source: str, language: str, *, system: Path = SYSTEM) -> Package:
    """The catalogs of `language` (or of its only region there, ko_KR for ko) in `source`: a path if
    it has a slash or an archive's ending, else an installed Python package, else a Debian package
    or a domain below `system`.

    Raises NotFoundError, UsageError for several regions, MismatchError for one file that says it is
    in another language, StorageError, and FormatError naming file and line.
    """
    path = Path(source).expanduser()
    if path.suffix in _CATALOGS:
        return _single(path, language)
    if "/" in source or is_archive(path):
        return _package(source, *_of_path(path, language), language)
    for found in (_installed(source), debian_files(source, language, system)):
        if found is not None:
            return _package(source, *found, language)
    raise NotFoundError(
        f"no package with catalogs, and no domain, is called {source!r} on this machine",
        hint=_NAMES,
    )


def _single(path: Path, language: str) -> Package:
    catalog = _decode(path.name, _bytes(path), path.name)
    said = catalog.headers.get("language", "")
    if is_code(said) and not same_language(said, language):
        raise MismatchError(f"{path} is in {said!r}, not in {language!r}", hint=f"--to {said}")
    return Package(name=_printable(path.stem), catalogs=(catalog,))


def _package(source: str, facts: Facts, files: Files, language: str) -> Package:
    chosen = _in_language(source, files, language)
    return Package(
        name=_printable(facts.name or Path(source).name),
        version=facts.version,
        licence=facts.licence,
        catalogs=tuple(_decode(inside, _bytes(files[inside]), source) for inside in chosen),
    )


def _in_language(source: str, files: Files, language: str) -> list[str]:
    """Of the language itself if there are any, else of its one region; sources, not compiled."""
    by_language: dict[str, list[str]] = {}
    for path in sorted(files):
        name = next((n for n in languages_of(path) if same_language(n, language)), None)
        if name is not None:
            by_language.setdefault(normal(name), []).append(path)
    if not by_language:
        raise NotFoundError(f"{source} has no catalog in {language!r}", hint=_NAMES)
    if normal(language) not in by_language and len(by_language) > 1:
        raise UsageError(
            f"{source} has several kinds of {language!r}: {', '.join(sorted(by_language))}",
            hint=f"choose one: --to {min(by_language)}",
        )
    found = by_language.get(normal(language)) or next(iter(by_language.values()))
    written = {path for path in found if path.endswith(".po")}
    return [path for path in found if path in written or f"{path[:-3]}.po" not in written]


def _decode(inside: str, data: bytes, source: str) -> Catalog:
    decode = decode_po if inside.endswith(".po") else decode_mo
    # An error says in which of many packages it is; the rows name the path inside alone.
    label = inside if inside == source else f"{source}: {inside}"
    return replace(decode(data, name=label), name=_printable(inside))


def _printable(name: str) -> str:
    """Rows say where they are from, and are UTF-8."""
    if not name.isprintable():
        raise FormatError(f"{name!r} is no text that can be shown", hint="rename it")
    return name


def _of_path(path: Path, language: str) -> tuple[Facts, Files]:
    if path.is_dir():
        with disk("list", path):
            found = [p for p in path.rglob("*.[pm]o") if p.is_file()]
        name = path.resolve().name
        return Facts(name=name), {p.relative_to(path).as_posix(): p for p in found}
    if not path.is_file():
        raise NotFoundError(f"there is no file or folder {path}", hint="check the path")
    if not is_archive(path):
        raise UsageError(f"{path} is no archive, catalog or folder", hint=_NAMES)

    def wanted(name: str) -> bool:
        return _is_about(name) or any(same_language(n, language) for n in languages_of(name))

    files = read_archive(path, wanted)
    facts = _archive_facts({n: data for n, data in files.items() if _is_about(n)})
    return replace(facts, name=facts.name or path.name), files


def _is_about(name: str) -> bool:
    """A file about the package: of a wheel, of a source archive, of a Debian package."""
    parts = PurePosixPath(name).parts
    return (
        name == "control"
        or (len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] == "METADATA")
        or (len(parts) <= 2 and parts[-1:] == ("PKG-INFO",))
        or (name.startswith("usr/share/doc/") and len(parts) == 5 and parts[-1] == "copyright")
    )


def _archive_facts(files: Mapping[str, bytes]) -> Facts:
    about = {PurePosixPath(n).name: d.decode(errors="replace") for n, d in files.items()}
    if "control" in about:
        return debian_facts(about["control"], about.get("copyright"))
    metadata = about.get("METADATA") or about.get("PKG-INFO")
    return python_facts(metadata) if metadata else Facts()


def _installed(name: str) -> tuple[Facts, Files] | None:
    """Of a Python package that is installed here; None if none is or it has no catalogs at all, for
    a Debian package may have the same name."""
    try:
        found = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    listed = [file for file in found.files or () if languages_of(file.as_posix())]
    if not listed:
        return None
    metadata = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    return python_facts(metadata), {f.as_posix(): Path(str(f.locate())) for f in listed}


def _bytes(file: bytes | Path) -> bytes:
    if isinstance(file, bytes):
        return file
    data = read_bytes(file, limit=MAX_BYTES)
    if data is None:
        raise NotFoundError(f"there is no file {file}", hint="check the path")
    return data
