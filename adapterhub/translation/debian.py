"""The catalogs of this system: of an installed Debian package, or of one gettext domain.

Reads what dpkg keeps; systems without it have domains alone, of which nothing else is known.
"""

from __future__ import annotations

from pathlib import Path

from adapterhub.formats.po_catalog import MAX_BYTES
from adapterhub.hub.files import disk, read_bytes
from adapterhub.translation.languages import languages_of, same_language
from adapterhub.translation.package_facts import Facts, debian_facts

SYSTEM = Path("/")
_LOCALES = ("usr/share/locale", "usr/share/locale-langpack")
_INFO = "var/lib/dpkg/info"


def debian_files(name: str, language: str, system: Path) -> tuple[Facts, dict[str, Path]] | None:
    """(facts, path below `system` -> file) of the package of this name, else of the domain; None if
    there is neither, or nothing of it in any language."""
    listed = [path for path in _listed(name, system) if languages_of(path)]
    if listed:
        # A link is another name of a catalog that is there.
        files = {path: system / path for path in listed}
        return _facts(name, system), {
            path: file for path, file in files.items() if file.is_file() and not file.is_symlink()
        }
    found = _domain(name, language, system)
    if not found:
        return None
    owner = _owner(next(iter(found)), system)
    return (_facts(owner, system) if owner else Facts(name=name)), found


def _listed(name: str, system: Path) -> list[str]:
    """The files of an installed package, without the first slash; none if there is none."""
    info = system / _INFO
    for listing in (info / f"{name}.list", *sorted(info.glob("*:*.list"))):
        if listing.name.partition(":")[0].removesuffix(".list") == name and listing.is_file():
            return [line.lstrip("/") for line in _text(listing).splitlines()]
    return []


def _domain(name: str, language: str, system: Path) -> dict[str, Path]:
    found = {}
    for locales in (system / place for place in _LOCALES):
        with disk("list", locales):
            folders = sorted(locales.iterdir()) if locales.is_dir() else []
        for folder in folders:
            path = folder / "LC_MESSAGES" / f"{name}.mo"
            if same_language(folder.name, language) and path.is_file():
                found[path.relative_to(system).as_posix()] = path
    return found


def _owner(path: str, system: Path) -> str | None:
    line = f"/{path}"
    for listing in sorted((system / _INFO).glob("*.list")):
        if line in _text(listing).splitlines():
            return listing.stem.partition(":")[0]
    return None


def _facts(name: str, system: Path) -> Facts:
    status = _text(system / "var/lib/dpkg/status")
    stanzas = (s for s in status.split("\n\n") if s.startswith(f"Package: {name}\n"))
    stanza = next(stanzas, f"Package: {name}\n")
    return debian_facts(stanza, _text(system / "usr/share/doc" / name / "copyright"))


def _text(path: Path) -> str:
    return (read_bytes(path, limit=MAX_BYTES) or b"").decode(errors="replace")
