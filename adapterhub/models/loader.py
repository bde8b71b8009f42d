"""Load a stored base for use: on this device, in this dtype, dense or quantized.

On a CPU a quantized base becomes a dense float32 shadow of exactly the values its 4 or 8 bits
stand for, when memory allows: several times faster, and with correct gradients on every CPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.sites import SiteKind
from adapterhub.errors import FormatError, UsageError
from adapterhub.models.bases import base_folder
from adapterhub.models.chat import Chat
from adapterhub.models.linear import linear_sites
from adapterhub.models.memory import available_bytes, dense_fits
from adapterhub.models.overlay import Overlay
from adapterhub.models.quiet import quiet
from adapterhub.models.sites import Listed, ModuleSite, find_sites
from adapterhub.models.store import backend_for

_DEVICE = re.compile(r"cpu|cuda(?::(?P<number>[0-9]{1,3}))?")


@dataclass(kw_only=True)
class Base:
    """A base in memory (`adapterhub.domain.protocols.LoadedBase`), weights frozen, eval mode."""

    spec: BaseSpec
    model: Any
    tokenizer: Any
    device: str
    dense: bool
    shared: dict[str, Any] = field(default_factory=dict)
    sequential: bool = False

    def __post_init__(self) -> None:
        # Before an adapter wraps or renames anything.
        self._sites = find_sites(self)
        self._overlay = Overlay(self.model)

    def sites(self, kind: SiteKind) -> Mapping[str, ModuleSite]:
        return self._sites[kind]

    def parameters(self) -> Mapping[str, Any]:
        return self._overlay.parameters

    def add_to_parameter(self, name: str, change: Callable[[], Any]) -> Listed:
        return self._overlay.add(name, change)

    def changes_parameters_of(self, module: Any) -> bool:
        return self._overlay.changes(module)

    def own_parameters_of(self, module: Any) -> AbstractContextManager[None]:
        return self._overlay.own(module)

    def linear_sites(self) -> Mapping[str, tuple[int, int]]:
        return linear_sites(self.model)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Every token that ends a turn, by the tokenizer's and the generation config's word."""
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return frozenset(t for t in (*listed, self.tokenizer.eos_token_id) if t is not None)

    @cached_property
    def chat(self) -> Chat:
        return Chat(self.tokenizer, stop_ids=self.stop_ids)


def best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_base(spec: BaseSpec, *, device: str | None = None, dense: bool | None = None) -> Base:
    """Load a base that `base add` stored. `dense` defaults to what fits on a CPU, never on CUDA.

    Raises FormatError where its files are gone.
    """
    device = device or best_device()
    check_device(device)
    if not (base_folder(spec.name) / "config.json").is_file():
        raise FormatError(
            f"the base {spec.name} has lost its files: there is no config.json",
            hint=f"remove it, then add it again: adapterhub base rm {spec.name}",
        )
    if dense is None:
        dense = device == "cpu" and dense_fits(
            spec.parameters, bytes_per_parameter=4, available=available_bytes()
        )
    return load_folder(base_folder(spec.name), spec, device=device, dense=dense)


def load_chat(spec: BaseSpec) -> Chat:
    """A base's tokenizer and template without its weights; its turns end by the tokenizer's word
    alone. Raises FormatError for a base without a tokenizer that can be read."""
    from transformers import AutoTokenizer

    place = base_folder(spec.name)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FormatError(
            f"the tokenizer of {spec.name} cannot be read: {str(error).strip().splitlines()[0]}",
            hint=f"add the base again: adapterhub base rm {spec.name}",
        ) from error
    return Chat(tokenizer, stop_ids=frozenset({tokenizer.eos_token_id} - {None}))


def load_folder(
    folder: Path, spec: BaseSpec, *, device: str, dense: bool, dtype: str | None = None
) -> Base:
    """Load stored weights from `folder`, to compute in torch's `dtype`: by default float32 on a
    CPU, bfloat16 on CUDA."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    usual = "float32" if device == "cpu" else "bfloat16"
    kind = getattr(torch, dtype or usual)
    with quiet():
        if spec.scheme.quantized:
            backend = backend_for(spec.scheme)
            model = backend.load(folder, spec.scheme, device=device, dtype=kind, dense=dense)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=kind, trust_remote_code=False
            ).to(device)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model.requires_grad_(False)
    model.eval()
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return Base(
        spec=spec,
        model=model,
        tokenizer=tokenizer,
        device=device,
        dense=dense or not spec.scheme.quantized,
    )


def check_device(device: str) -> None:
    """Raises UsageError for a device that this machine does not have."""
    import torch

    match = _DEVICE.fullmatch(device)
    if match is None:
        raise UsageError(f"{device!r} is not a device", hint="use cpu, cuda or cuda:N")
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UsageError("this machine has no CUDA device", hint="use --device cpu")
    if int(match["number"] or 0) >= count:
        raise UsageError(
            f"this machine has no device {device}", hint=f"its last one is cuda:{count - 1}"
        )
