"""Write a new plugin's package: one that works, to be changed into one's own.

Fills in templates; whether the result keeps its promises is for its own test to say.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal

from adapterhub.errors import UsageError

Kind = Literal["method", "trainer", "strategy", "task"]
KINDS: tuple[Kind, ...] = ("method", "trainer", "strategy", "task")
_CODE: Mapping[Kind, str] = {
    "method": "method",
    "trainer": "objective",
    "strategy": "combine",
    "task": "words",
}
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def check_name(name: str) -> None:
    """Raises UsageError for what cannot be a module's, a record's and a distribution's name."""
    if not _NAME.fullmatch(name) or len(name) > 40:
        raise UsageError(
            f"{name!r} cannot be the name of a plugin",
            hint="small letters, digits and single underscores, such as low_rank_bias",
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"{name!r} is a word of Python's own", hint="choose another name")


def write_plugin(folder: Path, name: str, kind: Kind) -> list[Path]:
    """Write the package into an existing `folder`; returns its files, relative to that."""
    check_name(name)
    package = f"adapterhub_{name}"
    words = {
        "name": name,
        "kind": kind,
        "package": package,
        "distribution": package.replace("_", "-"),
        "cls": "".join(part.capitalize() for part in name.split("_")),
    }
    written = []
    for template, target in _files(package, name, kind):
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        text = files("adapterhub.plugin").joinpath("template", *template).read_text("utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
        written.append(Path(target))
    return written


def _files(package: str, name: str, kind: Kind) -> Iterator[tuple[tuple[str, ...], str]]:
    yield ("pyproject.toml.tmpl",), "pyproject.toml"
    yield ("README.md.tmpl",), "README.md"
    yield (kind, "declare.py.tmpl"), f"{package}/__init__.py"
    yield (kind, f"{_CODE[kind]}.py.tmpl"), f"{package}/{_CODE[kind]}.py"
    yield (kind, "conformance.py.tmpl"), f"tests/test_{name}.py"
