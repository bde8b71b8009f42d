"""Hand an adapter, or a base, to a destination that writes its own format.

Reads tensors as they are asked for; knows no format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.destination import (
    AdapterExporter,
    AdapterFacts,
    AdapterSource,
    BaseExporter,
    Finding,
)
from adapterhub.domain.manifest import PEFT_PREFIX, WEIGHTS_FILE
from adapterhub.errors import CapabilityError, NotFoundError
from adapterhub.hub.staging import staged_path
from adapterhub.models.bases import base_folder
from adapterhub.models.fingerprint import sha256_file


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAdapter:
    """`adapterhub.domain.destination.AdapterSource`."""

    facts: AdapterFacts
    folder: Path
    base_config: Mapping[str, Any] | None

    def pairs(self) -> Iterator[tuple[str, Any, Any]]:
        import torch
        from safetensors import safe_open

        with safe_open(self.folder / WEIGHTS_FILE, framework="pt") as file:
            for module in self.facts.modules:
                A, B = (
                    file.get_tensor(f"{PEFT_PREFIX}{module}.{part}.weight").to(torch.float32)
                    for part in ("lora_A", "lora_B")
                )
                yield module, A, B


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBase:
    """`adapterhub.domain.destination.BaseSource`."""

    spec: BaseSpec
    config: Mapping[str, Any]
    file: Path | None

    def tensors(self) -> Iterator[tuple[str, Any]]:
        import torch

        from adapterhub.models.loader import load_folder

        base = load_folder(base_folder(self.spec.name), self.spec, device="cpu", dense=True)
        for name, parameter in base.model.named_parameters():
            yield name, parameter.detach().to(torch.float32)


def export_adapter(
    folder: Path, facts: AdapterFacts, exporter: AdapterExporter, base: BaseSpec | None, out: Path
) -> tuple[list[Finding], list[str]]:
    """(what the destination warns of, what the exporter has to say). Writes `out` whole or not at
    all. Raises CapabilityError where a rule finds an error."""
    findings = list(exporter.check(facts))
    refuse_errors(findings)
    source: AdapterSource = StoredAdapter(
        facts=facts, folder=folder, base_config=None if base is None else _config(base)
    )
    with staged_path(out) as place:
        notes = list(exporter.export(source, place))
    return [finding for finding in findings if finding.severity == "warning"], notes


def refuse_errors(findings: Sequence[Finding]) -> None:
    wrong = next((finding for finding in findings if finding.severity == "error"), None)
    if wrong is not None:
        raise CapabilityError(f"{wrong.rule}: {wrong.reason}", hint=wrong.fix)


def export_base(spec: BaseSpec, exporter: BaseExporter, out: Path) -> None:
    """Raises CapabilityError where the format cannot hold the base, NotFoundError when the file it
    was made from is gone or another."""
    source = StoredBase(spec=spec, config=_config(spec), file=_source_file(spec))
    with staged_path(out) as place:
        exporter.export_base(source, place)


def _config(spec: BaseSpec) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((base_folder(spec.name) / "config.json").read_bytes())
    return config


def _source_file(spec: BaseSpec) -> Path | None:
    path = Path(spec.source).expanduser()
    if path.suffix != ".gguf":
        return None
    if not path.is_file():
        raise NotFoundError(
            f"{path}, from which {spec.name} was made, is gone", hint="put it back there"
        )
    if spec.revision != f"sha256:{sha256_file(path)}":
        raise NotFoundError(
            f"{path} is not the file any more from which {spec.name} was made",
            hint="put the old one back, or add the base again",
        )
    return path
