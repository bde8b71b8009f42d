"""Check an adapter's folder byte by byte, without torch and without a base in memory.

Cannot know whether the adapter does anything good; whether it does anything at all to a base is
for `adapterhub.trust`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from adapterhub.domain.base import BaseSpec, same_base
from adapterhub.domain.manifest import WEIGHTS_FILE, BaseRecord, Manifest
from adapterhub.errors import FormatError, NotFoundError, PluginError
from adapterhub.formats.safetensors_header import (
    Header,
    find_nonfinite,
    find_zero,
    read_header,
)
from adapterhub.hub import folder as folders
from adapterhub.hub.lora_layout import PREFIX, layout_facts, layout_problems, read_layout
from adapterhub.hub.paths import MAX_FILES, check_paths, unsafe
from adapterhub.hub.problems import Problem, Report, few
from adapterhub.plugin.catalog import catalog

__all__ = ["Problem", "Report", "verify_folder"]

T = TypeVar("T")
_COMMIT = re.compile(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def verify_folder(path: Path, *, base: BaseSpec | None = None) -> Report:
    """Every problem of the folder, not just the first. Raises NotFoundError for no adapter.

    `base` is the one the adapter is meant to run on; without it, only what the adapter records of
    its base is reported.
    """
    facts: dict[str, Any] = {"effect": "unchecked"}
    problems = list(_name_problems(path))
    if problems:  # opening what a hostile name or a link leads to is not worth one more finding
        return Report(False, tuple(problems), facts)
    try:
        folders.check_kind(path)
    except FormatError as error:
        problems.append(Problem("pickle", error.message, error.hint or ""))
    else:
        _check_contents(path, base, problems, facts)
    return Report(not problems, tuple(problems), facts)


def _check_contents(
    path: Path, base: BaseSpec | None, problems: list[Problem], facts: dict[str, Any]
) -> None:
    config = _reading("bad-config", problems, lambda: folders.read_config(path))
    composition = _reading("bad-composition", problems, lambda: folders.read_composition(path))
    manifest = _reading("bad-manifest", problems, lambda: folders.read_manifest(path))
    if manifest is None and not problems:
        manifest = _reading(
            "bad-config", problems, lambda: folders.infer_manifest(config, composition)
        )
    if manifest:
        facts |= {"method": manifest.method, "base": manifest.base.id}
        facts |= {"inferred": manifest.inferred}
        problems += _manifest_problems(manifest, config, composed=composition is not None)
        if base:
            problems += _base_problems(manifest.base, base, facts)
    if (path / WEIGHTS_FILE).is_file():
        _check_weights(path / WEIGHTS_FILE, config, problems, facts)
    elif config and config.get("peft_type"):
        problems.append(
            Problem("missing-weights", f"there is no {WEIGHTS_FILE}", "copy the whole folder")
        )


def _reading(code: str, problems: list[Problem], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except FormatError as error:
        problems.append(Problem(code, error.message, error.hint or ""))
        return None


# --- names ------------------------------------------------------------------------------------


def _name_problems(path: Path) -> Iterator[Problem]:
    names = []
    for name, link in itertools.islice(_walk(path), MAX_FILES + 1):
        names.append(name)
        if link:
            yield Problem(
                "symlink", f"{name} is not a plain file", "replace it by a copy of what it means"
            )
        reason = unsafe(name)
        if reason:
            yield Problem("file-name", f"the file name {name!r} {reason}", "rename or remove it")
    try:
        check_paths([name for name in names if not unsafe(name)], name=path.name)
    except FormatError as error:
        yield Problem("file-name", error.message, "rename or remove one of them")


def _walk(path: Path) -> Iterator[tuple[str, bool]]:
    """(POSIX path, whether it is anything but a plain file), in order, following no link.

    Hidden folders, such as git's, are no part of an adapter and are never published.
    """
    for root, folder_names, file_names in os.walk(path):
        folder_names[:] = sorted(name for name in folder_names if not name.startswith("."))
        for name in sorted([*folder_names, *file_names]):
            item = Path(root, name)
            if name in file_names or item.is_symlink():
                plain = item.is_file() and not item.is_symlink()
                yield item.relative_to(path).as_posix(), not plain


# --- what the manifest says -------------------------------------------------------------------


def _manifest_problems(
    manifest: Manifest, config: Mapping[str, Any] | None, *, composed: bool
) -> Iterator[Problem]:
    if composed:
        return
    try:
        method = catalog().methods[manifest.method]
    except (NotFoundError, PluginError) as error:
        yield Problem("unknown-method", error.message, error.hint or "")
    else:
        if manifest.config_version > method.config_version:
            yield Problem(
                "unknown-method",
                f"config_version {manifest.config_version} of {method.name} is newer than "
                f"{method.config_version}, the newest that is installed",
                "upgrade the plugin that provides it",
            )
    named = (config or {}).get("base_model_name_or_path")
    if named and _different_ids(named, manifest.base.id):
        yield Problem(
            "base-disagrees",
            f"the manifest is for {manifest.base.id}, adapter_config.json for {named}",
            "ask its author which base it was trained on",
        )


def _different_ids(left: str, right: str) -> bool:
    """Only ids of the hub can disagree: a path is where a base once lay on its author's disk."""
    hub_ids = _HUB_ID.fullmatch(left) and _HUB_ID.fullmatch(right)
    return bool(hub_ids) and left.casefold() != right.casefold()


def _base_problems(
    recorded: BaseRecord, given: BaseSpec, facts: dict[str, Any]
) -> Iterator[Problem]:
    difference = None
    if recorded.fingerprint is not None:
        facts["base_match"] = same_base(recorded.fingerprint, given.fingerprint)
        if facts["base_match"] == "other":
            difference = "and its weights are others"
    elif recorded.id.casefold() not in {n.casefold() for n in (given.id, given.name, given.source)}:
        difference = "and nothing shows that they are one"
    elif _other_commit(recorded.revision, given.revision):
        difference = "another revision"
    facts.setdefault("base_match", "other" if difference else "by name")
    if difference:
        yield Problem(
            "wrong-base",
            f"it was made for {_base_text(recorded.id, recorded.revision)}, this base is "
            f"{_base_text(given.id, given.revision)}, {difference}",
            f"use its own base: {recorded.id}",
        )


def _other_commit(recorded: str | None, given: str) -> bool:
    """Commits of one kind compare; a branch's name says nothing, nor does a file's hash."""
    if not recorded or not _COMMIT.fullmatch(recorded) or not _COMMIT.fullmatch(given):
        return False
    return len(recorded) == len(given) and recorded != given


def _base_text(name: str, revision: str | None) -> str:
    return f"{name}@{revision.removeprefix('sha256:')[:12]}" if revision else name


# --- weights ----------------------------------------------------------------------------------


def _check_weights(
    path: Path, config: Mapping[str, Any] | None, problems: list[Problem], facts: dict[str, Any]
) -> None:
    header = _reading("bad-weights", problems, lambda: read_header(path))
    if header is None:
        return
    facts |= {"tensors": len(header.tensors), "bytes": header.size}
    broken = find_nonfinite(path, header)
    if broken:
        problems.append(
            Problem(
                "not-finite",
                f"{len(broken)} of {len(header.tensors)} tensors hold NaN or infinity: "
                f"{few(broken)}",
                "the training run diverged; ask its author for an earlier checkpoint",
            )
        )
    if config and config.get("peft_type") == "LORA":
        layout = read_layout(header)
        problems += layout_problems(config, layout)
        facts |= layout_facts(config, layout)
        problems += _effect_problems(path, header, facts)


def _effect_problems(path: Path, header: Header, facts: dict[str, Any]) -> Iterator[Problem]:
    """B.A is zero where either is; all of them zero means an adapter that changes nothing."""
    layout = read_layout(header)
    zero = {name.removeprefix(PREFIX) for name in find_zero(path, header)}
    idle = [
        module
        for module, shapes in layout.modules.items()
        if any(f"{module}.{part}" in zero for part in shapes if "lora_magnitude" not in part)
    ]
    facts["zero_modules"] = len(idle)
    if layout.modules and len(idle) == len(layout.modules) and layout.pure:
        yield Problem(
            "no-effect",
            f"lora_B is zero in {len(idle)} of {len(idle)} modules: it changes nothing",
            "it was never trained, or saved by a run that kept its weights elsewhere",
        )
