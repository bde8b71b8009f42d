"""What faults are planted in: tiny bases that differ in one respect each, and trained adapters.

All bases claim one id, as copies and fine-tunes in the wild do. Made once, in a home of their own.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE, Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.base_spec import encode_base
from adapterhub.formats.manifest import encode_manifest
from adapterhub.models.bases import SPEC_FILE, add_base, base_folder
from adapterhub.models.loader import Base, load_base
from adapterhub.models.quiet import quiet
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import method_of
from adapterhub.runtime.engine import ReferenceEngine, open_engine
from adapterhub.testing.practice import shake, train
from adapterhub.testing.tiny import (
    EOS,
    PAD,
    TEMPLATE,
    VOCABULARY,
    temporary_home,
    tiny_model,
    write_tokenizer,
)
from adapterhub.trust.record import record_probe

ID = "acme/tiny-llama"
SLOT = "made"
Change = Callable[[Any], None]


def _resized(model: Any) -> None:
    model.resize_token_embeddings(VOCABULARY + 8)


def _tuned(model: Any) -> None:
    """Every matrix is other than it was, every norm as it was."""
    make = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 2:
                tensor.add_(torch.randn(tensor.shape, generator=make), alpha=0.1)


def _untouched(model: Any) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A base by what makes it another than `tiny`."""

    family: str = "llama"
    seed: int = 0
    layers: int = 2
    revision: str = "a" * 40
    scheme: str = "bf16"
    template: str = TEMPLATE
    bos: bool = False
    change: Change = _untouched


BASES: Mapping[str, Kind] = {
    "tiny": Kind(),
    "stranger": Kind(seed=1),
    "tuned": Kind(change=_tuned, revision="b" * 40),
    "shallow": Kind(layers=1),
    "deep": Kind(layers=3),
    "resized": Kind(change=_resized),
    "quantized": Kind(scheme="nf4"),
    "retold": Kind(template=TEMPLATE.replace("<|end|>", "</s>")),
    "respelt": Kind(bos=True),
    "gpt2": Kind(family="gpt2"),
    "fused": Kind(family="phi3"),
}


@dataclass(eq=False)
class Ground:
    """`sources` holds what transformers loads; the bases of `home` were made of them."""

    home: Path
    _engines: dict[str, ReferenceEngine] = field(default_factory=dict)

    def source(self, name: str) -> Path:
        return self.home / "sources" / name

    def spec(self, name: str) -> BaseSpec:
        """The base, made if it is not here. Its adapters are made for `ID` at its revision."""
        kind = BASES[name]
        with temporary_home(self.home):
            if not base_folder(name).is_dir():
                self._write(name, kind)
                spec = add_base(name, str(self.source(name)), scheme_by_name(kind.scheme))
                spec = dataclasses.replace(spec, id=ID, source=ID, revision=kind.revision)
                (base_folder(name) / SPEC_FILE).write_bytes(encode_base(spec))
            return self.engine(name).base.spec

    def engine(self, name: str) -> ReferenceEngine:
        """One engine a base, with no adapter on it."""
        if name not in self._engines:
            from adapterhub.models.bases import find_base

            with temporary_home(self.home):
                self._engines[name] = open_engine(load_base(find_base(name), device="cpu"))
        return self._engines[name]

    def base(self, name: str) -> Base:
        self.spec(name)
        made = self.engine(name).base
        assert isinstance(made, Base)
        return made

    def _write(self, name: str, kind: Kind) -> None:
        folder = self.source(name)
        model = tiny_model(kind.family, seed=kind.seed, layers=kind.layers)
        kind.change(model)
        model.generation_config.eos_token_id = EOS
        model.generation_config.pad_token_id = PAD
        write_tokenizer(folder, template=kind.template, bos=kind.bos)
        # In the precision in which `bf16` stores it, so that both sides read the same numbers.
        with quiet():
            model.to(torch.bfloat16).save_pretrained(folder)

    def adapter(self, name: str) -> Path:
        """A good adapter, made if it is not here; to be copied, not changed."""
        folder = self.home / "adapters" / name
        if not folder.is_dir():
            made = ADAPTERS[name]
            write_adapter(self, folder, made)
        return folder


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a good adapter is made: `options` as `adapterhub train` takes them, `shaken` instead of
    trained where training would take long for nothing."""

    method: str = "lora"
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = "tiny"
    seed: int = 0
    steps: int = 6


_TARGETS = {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]}
ADAPTERS: Mapping[str, Made] = {
    "lora": Made(options=_TARGETS),
    "second": Made(options=_TARGETS, seed=7),
    "dora": Made(options={**_TARGETS, "dora": True}),
    "rslora": Made(options={**_TARGETS, "rslora": True}),
    "ia3": Made(method="ia3"),
    "gpt2": Made(options={"rank": 4}, base="gpt2"),
}


def write_adapter(ground: Ground, folder: Path, made: Made) -> Path:
    """Train, and store as `adapterhub train` does."""
    from safetensors.torch import save_file

    base = ground.base(made.base)
    rack = ground.engine(made.base).rack
    method = method_of(made.method)
    config = method.new_config(base.spec, made.options)
    adapter = rack.attach_fresh(SLOT, made.method, config, seed=made.seed)
    try:
        if made.steps:
            train(base, adapter, steps=made.steps)
        else:
            shake(adapter, seed=made.seed)
        state, config = adapter.state(), dict(adapter.config)
    finally:
        rack.detach(SLOT)
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_bytes(encode_config(config))
    if state:
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    record = catalog().methods[made.method]
    manifest = Manifest(method=record.stored_as or record.name, config_version=1,
                        base=record_of(base.spec))  # fmt: skip
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    record_probe(folder, base, name=folder.name)
    return folder


@cache
def ground_in(home: Path) -> Ground:
    return Ground(home)


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
