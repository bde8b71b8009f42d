"""What a manifest and a config claim, held against each other and against what is installed.

Opens no weights; those are `hub.verify`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseRecord, Manifest
from adapterhub.domain.match import base_text, match_base, record_of
from adapterhub.domain.method import Method
from adapterhub.domain.protocols import AdapterMethod
from adapterhub.errors import (
    CapabilityError,
    FormatError,
    MismatchError,
    NoEffectError,
    NotFoundError,
    PluginError,
)
from adapterhub.hub import folder as folders
from adapterhub.hub.folder import COMPOSITION_METHOD, METHOD_KEY
from adapterhub.hub.problems import Problem
from adapterhub.plugin.catalog import catalog, load_target

STALE_PROBE = "stale-probe"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def manifest_problems(
    manifest: Manifest, config: Mapping[str, Any] | None, *, composed: bool
) -> Iterator[Problem]:
    if composed:
        if manifest.method != COMPOSITION_METHOD:
            yield Problem(
                "method-disagrees",
                f"the manifest says {manifest.method}, and there is a composition",
                "remove the file that does not belong here",
            )
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
    own = (config or {}).get(METHOD_KEY)
    if isinstance(own, str) and own != manifest.method and own in catalog().methods.entries:
        yield Problem(
            "method-disagrees",
            f"the manifest says {manifest.method}, but {CONFIG_FILE} says {own}",
            "ask its author which of the two it is",
        )
    named = (config or {}).get("base_model_name_or_path")
    if named and _different_ids(named, manifest.base.id):
        yield Problem(
            "base-disagrees",
            f"the manifest is for {manifest.base.id}, adapter_config.json for {named}",
            "ask its author which base it was trained on",
        )


def missing_problems(
    path: Path, manifest: Manifest, config: Mapping[str, Any] | None
) -> Iterator[Problem]:
    missing = folders.missing_file(path, manifest, config)
    if missing:
        code = "missing-weights" if missing == WEIGHTS_FILE else "missing-file"
        yield Problem(
            code, f"{manifest.method} needs {missing}, and there is none", "copy the whole folder"
        )


def _different_ids(left: str, right: str) -> bool:
    """Only ids of the hub can disagree: a path is where a base once lay on its author's disk."""
    hub_ids = _HUB_ID.fullmatch(left) and _HUB_ID.fullmatch(right)
    return bool(hub_ids) and left.casefold() != right.casefold()


def base_problems(
    recorded: BaseRecord, given: BaseSpec, facts: dict[str, Any]
) -> Iterator[Problem]:
    found = match_base(recorded, given)
    facts["base_match"] = found.verdict
    if found.differences:
        facts["base_differences"] = list(found.differences)
    if not found.fits:
        yield Problem(
            "wrong-base",
            f"it was made for {base_text(recorded)}, this base is "
            f"{base_text(record_of(given))}, {found.reason}",
            f"use its own base: {recorded.id}",
        )


def probe_problems(
    path: Path, manifest: Manifest, config: Mapping[str, Any] | None, facts: dict[str, Any]
) -> Iterator[Problem]:
    """A probe speaks of the very weights and config that it was taken with."""
    probe = manifest.probe
    if probe is None:
        return
    made = probe.environment
    facts["probe"] = f"recorded on {made.scheme}, {made.dtype}, {made.device}"
    if probe.adapter != folders.adapter_digest(path, config):
        yield Problem(
            STALE_PROBE,
            "its weights or its config were changed after its probe was taken",
            "pull it again, or have its author take a new probe: adapterhub push DIR REF --base "
            f"NAME; --allow {STALE_PROBE} goes on",
        )


def tensorless_problems(
    path: Path, config: Mapping[str, Any] | None, record: Method
) -> Iterator[Problem]:
    """An adapter that is its config alone, judged by the words of its method."""
    if (path / WEIGHTS_FILE).is_file():
        yield Problem(
            "unexpected-weights",
            f"{record.name} stores no weights, and there is {WEIGHTS_FILE}",
            "remove the file, or ask its author what it is for",
        )
    if config is None:
        return
    method: AdapterMethod = load_target(record.target)()
    try:
        list(method.patches(config, {}))
    except NoEffectError as error:
        yield Problem("no-effect", error.message, error.hint or "")
    except (FormatError, MismatchError) as error:
        yield Problem("bad-config", error.message, error.hint or "")
    except CapabilityError:
        return  # it can be described on a base only
