"""The adapters that take part, and their patches one module at a time.

Opens weight files by their header and reads tensors through their method; how patches are combined
is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.compose.outline import Outline, Site
from adapterhub.domain.digest import digest_of
from adapterhub.domain.method import Capability
from adapterhub.domain.patch import Affine, Patch
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.scales import NO_SCALES, Scales
from adapterhub.errors import CapabilityError, FormatError, MismatchError, PluginError, UsageError
from adapterhub.formats.safetensors_header import Header, read_header
from adapterhub.hub.files import disk
from adapterhub.hub.folder import AdapterFolder, has_tensors
from adapterhub.plugin.catalog import catalog
from adapterhub.plugin.stored import open_method

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One adapter with its weight, and what some of its modules have beside it; `remote` is where
    it was pulled from.

    `sha256` is that of its weights file as it was opened. Where its method has no tensors, its
    config is the whole adapter, and `sha256` the digest of the config's canonical JSON.
    """

    ref: str
    folder: AdapterFolder
    sha256: str
    weight: float = 1.0
    scales: Scales = field(default_factory=dict)
    commit: str | None = None
    remote: str | None = None

    @property
    def config_sha256(self) -> str:
        """Of the config as a value: whatever reads it reads the same numbers."""
        return digest_of(dict(self.folder.config or {}))

    @property
    def identity(self) -> str:
        """Equal weights under an equal config; under another alpha they are another adapter."""
        return digest_of([self.sha256, self.config_sha256])


def open_member(
    ref: str,
    folder: AdapterFolder,
    *,
    weight: float = 1.0,
    scales: Scales = NO_SCALES,
    commit: str | None = None,
    remote: str | None = None,
) -> Member:
    """Hash an adapter that is to take part. Raises UsageError for one that is a composition."""
    sha256 = digest_of(dict(folder.config or {}))
    if not _config_alone(folder):
        path = _weights(ref, folder)
        with disk("read", path), path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Member(
        ref=ref, folder=folder, sha256=sha256, weight=weight, scales=dict(scales), commit=commit,
        remote=remote,
    )  # fmt: skip


def outline(member: Member) -> Outline:
    """The member's low-rank deltas, from its file's header alone, and what keeps it from being
    merged.

    Its method describes tensors that have shapes and no values; one that asks for values is given
    them.
    """
    manifest = member.folder.manifest
    record = catalog().method_for(manifest)
    stackable = Capability.STACK in record.capabilities
    found = _Described()
    # A method that does not stack is refused by name, so its patches need no description.
    if stackable:
        try:
            found = _described(member, _hollow_state(member))
        except RuntimeError:  # torch's, for a value asked of a tensor that has none
            found = _described(member, _whole_state(member))
    return Outline(
        ref=member.ref,
        weight=member.weight,
        scales=member.scales,
        method=record.name,
        stackable=stackable,
        scalable=Capability.MODULE_WEIGHTS in record.capabilities,
        base=manifest.base,
        sites=found.sites,
        modules=found.modules,
        unmergeable=found.reason,
        centroid=manifest.centroid,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Described:
    """The deltas up to the first patch that is none, and what is said of that one."""

    sites: Mapping[str, Site] = field(default_factory=dict)
    modules: tuple[str, ...] | None = None
    reason: str | None = None


def _described(member: Member, state: Mapping[str, Any]) -> _Described:
    """Behind the first patch that is no delta, only names are of interest, and to scales alone."""
    sites: dict[str, Site] = {}
    patches = _describe(member, state)
    try:
        for module, patch in patches:
            try:
                sites[module] = _site(low_rank(module, patch))
            except CapabilityError as error:
                rest = [name for name, _ in patches] if member.scales else None
                modules = None if rest is None else (*sites, module, *rest)
                return _Described(sites=sites, modules=modules, reason=error.message)
    except CapabilityError as error:
        return _Described(sites=sites, reason=error.message)
    return _Described(sites=sites, modules=tuple(sites))


def _hollow_state(member: Member) -> dict[str, Any]:
    import torch

    if _config_alone(member.folder):
        return {}
    header = read_header(_weights(member.ref, member.folder))
    return {
        name: torch.empty(info.shape, dtype=getattr(torch, _DTYPES[info.dtype]), device="meta")
        for name, info in header.tensors.items()
    }


def read_state(member: Member) -> dict[str, Any]:
    """Every tensor that it stores; none where its config is all of it."""
    return {} if _config_alone(member.folder) else _whole_state(member)


def _whole_state(member: Member) -> dict[str, Any]:
    from safetensors.torch import load_file

    path = _weights(member.ref, member.folder)
    read_header(path)
    return dict(load_file(path))


class PatchStream:
    """A member's patches by module, or `only` some of them. Cheapest when asked in the method's
    own order."""

    def __init__(
        self,
        member: Member,
        state: Mapping[str, Tensor],
        base: LoadedBase | None = None,
        *,
        only: Collection[str] | None = None,
    ) -> None:
        self._ref = member.ref
        described = _describe(member, state, base)
        self._patches = (pair for pair in described if only is None or pair[0] in only)
        self._waiting: dict[str, Patch] = {}

    def take(self, module: str) -> Affine:
        """Hand over one patch and forget it. Raises PluginError if there is none."""
        while module not in self._waiting:
            try:
                name, patch = next(self._patches)
            except StopIteration:
                raise PluginError(
                    f"the method of {self._ref} no longer describes {module}",
                    hint="report it to the method's plugin; `adapterhub plugins` names it",
                ) from None
            self._waiting[name] = patch
        return low_rank(module, self._waiting.pop(module))

    def rest(self) -> Iterator[tuple[str, Patch]]:
        """Hand over every other patch as well, of whatever form, in the method's order."""
        while self._waiting:
            yield self._waiting.popitem()
        yield from self._patches


@contextmanager
def open_patches(
    member: Member, base: LoadedBase | None = None, *, only: Collection[str] | None = None
) -> Iterator[PatchStream]:
    """Read a member's tensors as their modules come up. With `base`, patches that depend on its
    weights are described as well; patches of modules that are not among `only` are passed over."""
    from safetensors import SafetensorError, safe_open

    if _config_alone(member.folder):
        yield PatchStream(member, {}, base, only=only)
        return
    path = _weights(member.ref, member.folder)
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield PatchStream(member, _LazyState(header, file), base, only=only)
    except SafetensorError as error:
        raise FormatError(
            f"{member.ref}: {path.name} cannot be read: {error}", hint="pull the adapter again"
        ) from error


def low_rank(module: str, patch: Patch) -> Affine:
    """The patch, if its whole effect is a low-rank delta. Raises CapabilityError saying why not."""
    if isinstance(patch, Affine) and patch.low_rank_only:
        return patch
    extra = type(patch).__name__
    if isinstance(patch, Affine):
        parts = ("row_scale", "column_scale", "bias")
        extra = next((part for part in parts if getattr(patch, part) is not None), extra)
    raise CapabilityError(
        f"it has a {extra.lower()} {f'at {module}' if module else 'for the whole model'}, "
        "which cannot be added to other deltas",
        hint="attach it beside the others instead of merging",
    )


class _LazyState(Mapping[str, Any]):
    """Stored tensors by name, each read when it is asked for and not kept."""

    def __init__(self, header: Header, file: Any) -> None:
        self._names = header.tensors
        self._file = file

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _describe(
    member: Member, state: Mapping[str, Any], base: LoadedBase | None = None
) -> Iterator[tuple[str, Patch]]:
    """What the method says of the member; it knows no names, so its complaints are given one."""
    record = catalog().method_for(member.folder.manifest)
    method = open_method(record)
    try:
        yield from method.patches(member.folder.config or {}, state, base)
    except (FormatError, MismatchError) as error:
        raise type(error)(f"{member.ref}: {error.message}", hint=error.hint) from error


def _site(affine: Affine) -> Site:
    dtypes = {str(part.dtype).removeprefix("torch.") for part in (affine.A, affine.B)}
    return Site(
        rank=affine.rank,
        out_features=int(affine.B.shape[0]),
        in_features=int(affine.A.shape[1]),
        dtype=dtypes.pop() if len(dtypes) == 1 else "mixed",
    )


def _config_alone(folder: AdapterFolder) -> bool:
    return folder.config is not None and has_tensors(folder.manifest.method) is False


def _weights(ref: str, folder: AdapterFolder) -> Path:
    path = folder.weights_path
    if path is None:
        raise UsageError(
            f"{ref} has no weights of its own to stack",
            hint="name the adapters it is made of, or write it as one adapter first with -o",
        )
    return path
