"""Read an adapter's folder: its manifest, config and composition, or what can be inferred.

Opens no weights; whether they keep their word is for `hub.verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.domain.composition import PinnedComposition
from adapterhub.domain.digest import digest_of
from adapterhub.domain.manifest import (
    COMPOSITION_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    BaseRecord,
    Manifest,
    Parent,
)
from adapterhub.errors import FormatError, NotFoundError
from adapterhub.formats.adapter_config import decode_config, dropped_keys
from adapterhub.formats.composition_file import decode_composition
from adapterhub.formats.manifest import decode_manifest
from adapterhub.hub.files import digests
from adapterhub.hub.paths import PICKLES, conversion
from adapterhub.plugin.catalog import catalog

COMPOSITION_METHOD = "composition"
LORA_METHOD = "lora"
METHOD_KEY = "method"  # by which a config that is none of peft's names its method
_MAX_TEXT = 1_000_000


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """What a folder says of itself. `config` is None for a method that stores none."""

    path: Path
    manifest: Manifest
    config: Mapping[str, Any] | None
    composition: PinnedComposition | None

    @property
    def weights_path(self) -> Path | None:
        """The safetensors file; None for a composition or a method without weights."""
        path = self.path / WEIGHTS_FILE
        return path if path.is_file() else None


def read_folder(path: Path) -> AdapterFolder:
    """Raises NotFoundError for what is no adapter, FormatError for one that breaks a rule."""
    check_kind(path)
    check_single(path)
    manifest, config, composition = read_manifest(path), read_config(path), read_composition(path)
    manifest = manifest or infer_manifest(config, composition)
    missing = missing_file(path, manifest, config)
    if missing:
        raise NotFoundError(
            f"{path} has no {missing}, which {manifest.method} needs", hint="copy the whole folder"
        )
    return AdapterFolder(path, manifest, config, composition)


def read_manifest(path: Path) -> Manifest | None:
    data = _bytes(path / MANIFEST_FILE)
    return None if data is None else decode_manifest(data)


def read_config(path: Path) -> dict[str, Any] | None:
    data = _bytes(path / CONFIG_FILE)
    return None if data is None else decode_config(data)


def ignored_keys(path: Path) -> tuple[str, ...]:
    """What the config holds that no method knows and that says nothing."""
    data = _bytes(path / CONFIG_FILE)
    return () if data is None else dropped_keys(data)


def read_composition(path: Path) -> PinnedComposition | None:
    data = _bytes(path / COMPOSITION_FILE)
    return None if data is None else decode_composition(data)


def adapter_digest(path: Path, config: Mapping[str, Any] | None) -> str:
    """Of the weights and the config's value: equal for what computes the same."""
    own = digest_of(dict(config or {}))
    weights = path / WEIGHTS_FILE
    return digest_of([digests(weights).sha256 if weights.is_file() else own, own])


def has_probe(path: Path) -> bool:
    """Whether it says what the adapter does to its base; a composition is its members, which do."""
    try:
        found = read_folder(path)
    except (FormatError, NotFoundError):
        return False
    return found.composition is not None or found.manifest.probe is not None


def infer_manifest(
    config: Mapping[str, Any] | None, composition: PinnedComposition | None
) -> Manifest:
    """What the other files say of an adapter without a manifest; the rest stays unknown."""
    if composition is not None:
        return _infer_from_composition(composition)
    return _infer_from_config(config or {})


def _bytes(path: Path) -> bytes | None:
    """The file's bytes, of which one too many is enough for its parser to refuse it."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_MAX_TEXT + 1)


def check_kind(path: Path) -> None:
    """Weights as pickles alone are refused by name; nothing at all is not an adapter."""
    if not path.is_dir():
        raise NotFoundError(f"{path} is not a folder", hint="name an adapter's folder")
    weights, config, manifest, composition = (
        (path / name).is_file()
        for name in (WEIGHTS_FILE, CONFIG_FILE, MANIFEST_FILE, COMPOSITION_FILE)
    )
    if not weights:
        _refuse_pickles(path)
    if manifest or composition or (weights and config) or (config and _says_all(path)):
        return
    if weights or config:
        present, missing = (WEIGHTS_FILE, CONFIG_FILE)[:: 1 if weights else -1]
        raise NotFoundError(
            f"{path} has {present} but no {missing}",
            hint="an adapter needs both; copy the whole folder",
        )
    raise NotFoundError(
        f"{path} is not an adapter: no {MANIFEST_FILE}, {CONFIG_FILE} or {COMPOSITION_FILE}",
        hint="name the folder that a training run or a pull wrote",
    )


def check_single(path: Path) -> None:
    """Raises FormatError for a composition beside an adapter: two readers could see either."""
    own = [name for name in (WEIGHTS_FILE, CONFIG_FILE) if (path / name).is_file()]
    if own and (path / COMPOSITION_FILE).is_file():
        raise FormatError(
            f"{path} is two adapters: {COMPOSITION_FILE} is beside {own[0]}",
            hint="move one of them to a folder of its own",
        )


def missing_file(path: Path, manifest: Manifest, config: Mapping[str, Any] | None) -> str | None:
    """The file without which the adapter is none.

    What a method stores is known where its plugin is installed; elsewhere peft's methods need both
    files.
    """
    tensors = has_tensors(manifest.method)
    if manifest.method == COMPOSITION_METHOD:
        needed: tuple[str, ...] = (COMPOSITION_FILE,)
    elif tensors is False:
        needed = (CONFIG_FILE,)
    elif tensors or manifest.method == LORA_METHOD or (config and config.get("peft_type")):
        needed = (WEIGHTS_FILE, CONFIG_FILE)
    else:
        return None
    return next((name for name in needed if not (path / name).is_file()), None)


def has_tensors(method: str) -> bool | None:
    """Whether adapters of a method hold weights; None where no plugin here provides it."""
    entry = catalog().methods.entries.get(method)
    return None if entry is None else entry.record.tensors


def _says_all(path: Path) -> bool:
    """Whether the config is a whole adapter: it names a method whose adapters hold no weights."""
    try:
        config = read_config(path) or {}
    except FormatError:
        return False
    method = config.get(METHOD_KEY)
    return isinstance(method, str) and has_tensors(method) is False


def named_path(text: str) -> Path | None:
    """The path that a person means, be there anything or not; None for what may be a ref.

    Raises NotFoundError for the home of a user whom this machine does not know.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise NotFoundError(f"there is no folder {text}", hint="check the path") from error
    name = text.partition("@")[0]
    deep = name.count("/") > 1 and ":" not in name
    meant = text.startswith((".", "/", "~")) or deep or "\\" in text
    return path if text and (meant or path.exists()) else None


def _refuse_pickles(path: Path) -> None:
    pickles = sorted(item.name for item in path.iterdir() if item.suffix.lower() in PICKLES)
    if pickles:
        raise FormatError(
            f"{path} has its weights as a pickle ({pickles[0]}), which is never opened",
            hint="ask its author for safetensors, or convert it apart from all else, there: "
            + conversion(pickles[0]),
        )


def _infer_from_config(config: Mapping[str, Any]) -> Manifest:
    base, method = config.get("base_model_name_or_path"), config.get("peft_type")
    own = config.get(METHOD_KEY)
    if not method and isinstance(own, str) and has_tensors(own) is not None:
        method = own
    if not base or not method:
        missing = "peft_type" if base else "base_model_name_or_path"
        raise FormatError(
            f"{CONFIG_FILE} has no {missing!r}, and there is no {MANIFEST_FILE} to say it",
            hint="ask the adapter's author which base and method it is for, and add it",
        )
    record = BaseRecord(id=base, revision=config.get("revision"))
    return Manifest(method=method.lower(), config_version=1, base=record, inferred=True)


def _infer_from_composition(composition: PinnedComposition) -> Manifest:
    return Manifest(
        method=COMPOSITION_METHOD,
        config_version=1,
        base=composition.base,
        parents=tuple(
            Parent(
                ref=term.ref,
                weight=term.weight,
                sha256=term.sha256,
                scales=dict(term.scales) if term.scales else None,
            )
            for term in composition.terms
        ),
        strategy=composition.strategy,
        written_by=composition.written_by,
        inferred=True,
    )
