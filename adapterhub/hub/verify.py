"""Check an adapter's folder byte by byte, without torch and without a base in memory.

Cannot know whether the adapter does anything good; whether it does anything at all to a base is
for `adapterhub.trust`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import CONFIG_FILE, PEFT_PREFIX, WEIGHTS_FILE, Manifest
from adapterhub.errors import FormatError
from adapterhub.formats.adapter_config import check_config
from adapterhub.formats.safetensors_header import (
    Header,
    find_nonfinite,
    find_zero,
    read_header,
)
from adapterhub.hub import folder as folders
from adapterhub.hub.claims import (
    base_problems,
    manifest_problems,
    missing_problems,
    probe_problems,
    tensor_problems,
    tensorless_problems,
)
from adapterhub.hub.folder import LORA_METHOD
from adapterhub.hub.lora_layout import Layout, layout_facts, layout_problems, read_layout
from adapterhub.hub.notes import add_notes, config_notes, dtype_problems, family_of, layout_notes
from adapterhub.hub.paths import MAX_FILES, check_paths, unsafe
from adapterhub.hub.problems import Problem, Report, few
from adapterhub.plugin.catalog import catalog

__all__ = ["Problem", "Report", "verify_folder"]

T = TypeVar("T")
_LORA_TYPE = "LORA"
_LORA_NAME = re.compile(r"(?:^|\.)lora_")


def verify_folder(path: Path, *, base: BaseSpec | None = None) -> Report:
    """Every problem of the folder, not just the first. Raises NotFoundError for no adapter.

    `base` is the one the adapter is meant to run on; without it, only what the adapter records of
    its base is reported.
    """
    facts: dict[str, Any] = {"effect": "unchecked"}
    problems = list(_name_problems(path))
    if problems:  # opening what a hostile name or a link leads to is not worth one more finding
        return Report(False, tuple(problems), facts)
    _reading("pickle", problems, lambda: folders.check_kind(path))
    if not problems:
        _reading("two-adapters", problems, lambda: folders.check_single(path))
        _check_contents(path, base, problems, facts)
    return Report(not problems, tuple(problems), facts)


def _check_contents(
    path: Path, base: BaseSpec | None, problems: list[Problem], facts: dict[str, Any]
) -> None:
    config = _reading("bad-config", problems, lambda: folders.read_config(path))
    composition = _reading("bad-composition", problems, lambda: folders.read_composition(path))
    manifest = _reading("bad-manifest", problems, lambda: folders.read_manifest(path))
    if config is not None and (ignored := folders.ignored_keys(path)):
        facts["ignored_keys"] = ", ".join(ignored)
    if composition is not None:
        facts["members"] = "unchecked"
    unread = {problem.code for problem in problems} - {"two-adapters"}
    if manifest is None and not unread:
        manifest = _reading(
            "bad-config", problems, lambda: folders.infer_manifest(config, composition)
        )
    if manifest:
        facts |= {"method": manifest.method, "base": manifest.base.id}
        facts |= {"inferred": manifest.inferred}
        problems += manifest_problems(manifest, config, composed=composition is not None)
        problems += missing_problems(path, manifest, config)
        if composition is None:
            problems += probe_problems(path, manifest, config, facts)
        if base:
            problems += base_problems(manifest.base, base, facts)
        add_notes(facts, config_notes(config, family_of(manifest, base)))
    method = manifest.method if manifest else None
    entry = catalog().methods.entries.get(method or "")
    if entry is not None and not entry.record.tensors:
        problems += tensorless_problems(path, config, entry.record)
    elif (path / WEIGHTS_FILE).is_file():
        _check_weights(
            path / WEIGHTS_FILE, config, problems, facts, manifest=None if composition else manifest
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
                "symlink", f"{name!r} is not a plain file", "replace it by a copy of what it means"
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


# --- weights ----------------------------------------------------------------------------------


def _check_weights(
    path: Path,
    config: Mapping[str, Any] | None,
    problems: list[Problem],
    facts: dict[str, Any],
    *,
    manifest: Manifest | None,
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
    problems += dtype_problems(header)
    if config is None:
        return
    method = manifest.method if manifest else None
    peft_type = config.get("peft_type")
    named_lora = any(_LORA_NAME.search(name) for name in header.tensors)
    problems += _method_problems(method, peft_type, named_lora=named_lora)
    if peft_type == _LORA_TYPE or method == LORA_METHOD or (named_lora and peft_type is None):
        _check_lora(path, header, config, problems, facts)
    elif manifest is not None:
        problems += tensor_problems(manifest, config, header, facts)


def _method_problems(
    method: str | None, peft_type: str | None, *, named_lora: bool
) -> Iterator[Problem]:
    """What peft would build must be what the manifest, and the tensors' names, speak of."""
    if peft_type is None:
        if named_lora or method == LORA_METHOD:
            yield Problem(
                "method-disagrees",
                f"the {'tensors are' if named_lora else 'manifest is'} of a LoRA, and "
                f"{CONFIG_FILE} has no 'peft_type' that says so",
                "save the adapter again with save_pretrained, which writes it",
            )
    elif method and (peft_type.lower() != method or peft_type != peft_type.upper()):
        yield Problem(
            "method-disagrees",
            f"the method is {method}, but {CONFIG_FILE} says {peft_type}",
            "ask its author which method it was trained by",
        )


def _check_lora(
    path: Path,
    header: Header,
    config: Mapping[str, Any],
    problems: list[Problem],
    facts: dict[str, Any],
) -> None:
    """By the rules of a LoRA, also where the config does not call itself one."""
    if config.get("peft_type") != _LORA_TYPE:
        as_lora = {**config, "peft_type": _LORA_TYPE}
        checked = _reading("bad-config", problems, lambda: check_config(as_lora))
    else:
        checked = dict(config)
    layout = read_layout(header)
    if checked is not None:
        problems += layout_problems(checked, layout)
        facts |= layout_facts(checked, layout)
        add_notes(facts, layout_notes(checked, layout))
    zero = {name.removeprefix(PEFT_PREFIX) for name in find_zero(path, header)}
    problems += _effect_problems(layout, zero, facts)


def _effect_problems(
    layout: Layout, zero: Collection[str], facts: dict[str, Any]
) -> Iterator[Problem]:
    idle = layout.idle(zero)
    facts["zero_modules"] = len(idle)
    if layout.modules and len(idle) == len(layout.modules) and not layout.others:
        yield Problem(
            "no-effect",
            f"lora_B is zero in {len(idle)} of {len(idle)} modules: it changes nothing",
            "it was never trained, or saved by a run that kept its weights elsewhere",
        )
