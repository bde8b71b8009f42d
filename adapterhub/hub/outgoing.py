"""Choose the files of a folder that a push may send.

The same rules as for a pull: known kinds of files only, nothing hidden, no links, safe names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterhub.errors import FormatError, NotFoundError
from adapterhub.hub.files import is_regular, regular_files
from adapterhub.hub.paths import check_paths, is_wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """What is sent, by path in the repository, and what stays behind."""

    files: dict[str, Path]
    skipped: tuple[str, ...]


def outgoing(folder: Path, *, name: str) -> Outgoing:
    """Raises NotFoundError for an empty folder, FormatError for a link or an unsafe name."""
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder", hint="name the folder of an adapter")
    found = regular_files(folder)
    files = {path: source for path, source in found.items() if is_wanted(path)}
    if not files:
        raise NotFoundError(
            f"{folder} holds nothing that can be published",
            hint="an adapter has an adapter_config.json and an adapter_model.safetensors",
        )
    check_paths(files, name=name)
    for path, source in files.items():
        if not is_regular(source):
            raise FormatError(f"{path} in {folder} is a link", hint="put a copy in its place")
    return Outgoing(files=files, skipped=tuple(sorted(found.keys() - files.keys())))
