"""Decide which files of a commit may land on this machine, before the first byte is written.

Pure: sees names and sizes only. The names must be safe on Linux, macOS and Windows alike.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from adapterhub.domain.manifest import WEIGHTS_FILE
from adapterhub.domain.stores import FileEntry
from adapterhub.errors import FormatError

MAX_FILES = 1000
MAX_FILE_BYTES = 20 << 30
MAX_TOTAL_BYTES = 50 << 30
MAX_PATH = 240

SUFFIXES = frozenset((".safetensors", ".json", ".md", ".toml", ".jinja", ".txt", ".model"))
PICKLES = frozenset((".bin", ".pt", ".pkl", ".pickle", ".pth", ".ckpt"))
_LEGAL = frozenset(("LICENSE", "NOTICE"))
_BESIDE_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.\w+")
_CHECKPOINT = re.compile(r"checkpoint-\d+")
# Control characters, what Windows refuses, and what turns the direction of writing.
_FORBIDDEN = re.compile(
    r'[\x00-\x1f\x7f-\x9f<>:"\\|?*\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]'
)
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.I)


def wanted(files: Iterable[FileEntry], *, name: str) -> tuple[FileEntry, ...]:
    """The files an adapter consists of, in path order, once the whole list has passed.

    `name` is the repository's, for messages. Raises FormatError; pickles are never wanted, and a
    repository whose weights are all pickles is refused.
    """
    entries = sorted(files, key=lambda entry: entry.path)
    check_paths([entry.path for entry in entries], name=name)
    chosen = tuple(entry for entry in entries if is_wanted(entry.path))
    _check_sizes(chosen, name)
    _check_not_pickled(entries, name)
    if not chosen:
        raise FormatError(
            f"{name} holds no file of an adapter",
            hint="an adapter has an adapter_config.json and an adapter_model.safetensors",
        )
    return chosen


def is_wanted(path: str) -> bool:
    """By name alone: hidden files, pickles and training checkpoints are not part of an adapter."""
    pure = PurePosixPath(path)
    if any(part.startswith(".") or _CHECKPOINT.fullmatch(part) for part in pure.parts):
        return False
    return pure.suffix.lower() in SUFFIXES or pure.name in _LEGAL


def check_paths(paths: Iterable[str], *, name: str) -> None:
    """Raises FormatError for the first path that is unsafe somewhere, or for two that collide."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for count, path in enumerate(paths, start=1):
        if count > MAX_FILES:
            raise _refused(name, f"more than {MAX_FILES} files")
        reason = unsafe(path)
        if reason:
            raise _refused(name, f"the file name {path!r}, which {reason}")
        _claim(path, seen, folders, name)


def unsafe(path: str) -> str | None:
    """Why a path must not be written, None if it may be."""
    if not path or len(path.encode(errors="replace")) > MAX_PATH:
        return f"is empty or longer than {MAX_PATH} bytes"
    if path.startswith("/"):
        return "is not relative"
    if _FORBIDDEN.search(path) or any(0xD800 <= ord(letter) <= 0xDFFF for letter in path):
        return "has a character that some systems forbid"
    return next((why for part in path.split("/") if (why := _unsafe_part(part))), None)


def _unsafe_part(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "leaves its folder or has an empty part"
    if part[-1] in " ." or part[0] == " ":
        return "begins or ends with a space or ends with a dot"
    if _RESERVED.fullmatch(part):
        return "is reserved on Windows"
    # `git~1` is the short name Windows gives to `.git`.
    if _folded(part) in (".git", "git~1"):
        return "belongs to git"
    return None


def _claim(path: str, seen: dict[str, str], folders: dict[str, str], name: str) -> None:
    """Note a path and its folders; two spellings of one name, or a file as a folder, collide."""
    key = _folded(path)
    if key in seen or key in folders:
        other = seen.get(key) or folders[key]
        raise _refused(name, f"both {other!r} and {path!r}, one file on some systems")
    seen[key] = path
    for parent in PurePosixPath(path).parents:
        spelled = str(parent)
        if spelled == ".":
            continue
        folder = _folded(spelled)
        if folder in seen or folders.setdefault(folder, spelled) != spelled:
            other = seen.get(folder) or folders[folder]
            raise _refused(name, f"both {other!r} and {path!r}, one place on some systems")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _check_sizes(entries: tuple[FileEntry, ...], name: str) -> None:
    for entry in entries:
        if not 0 <= entry.size <= MAX_FILE_BYTES:
            raise _refused(name, f"{entry.path} of {entry.size:,} bytes")
    if sum(entry.size for entry in entries) > MAX_TOTAL_BYTES:
        raise _refused(name, f"more than {MAX_TOTAL_BYTES >> 30} GiB")


def _check_not_pickled(entries: Iterable[FileEntry], name: str) -> None:
    paths = [PurePosixPath(entry.path) for entry in entries]
    if any(path.suffix.lower() == ".safetensors" for path in paths):
        return
    for path in paths:
        if path.suffix.lower() in PICKLES and not _BESIDE_WEIGHTS.fullmatch(path.name):
            raise FormatError(
                f"{name} has its weights as a pickle only ({path}), which can run code",
                hint=f"ask its author for safetensors, or fetch {path.name} yourself and "
                f"convert it apart from all else: {conversion(path.name)}",
            )


def conversion(file: str) -> str:
    """The command by which a person turns a pickle into safetensors, in a process without network
    or imports from its folder, by the unpickler of torch (2.6 and later) that makes tensors only.

    Never run here. The file's name is a stranger's, so it is quoted for the shell.
    """
    script = (
        "import sys, torch; from safetensors.torch import save_file; "
        "found = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
        "save_file({k: v.contiguous().clone() for k, v in found.items()}, "
        f"'{WEIGHTS_FILE}')"
    )
    return f'unshare -rn python3 -I -c "{script}" {shlex.quote(file)}'


def _refused(name: str, fact: str) -> FormatError:
    return FormatError(
        f"{name} is refused: it holds {fact}",
        hint="nothing was written; tell its author",
    )
