"""Read the tensors of a model's folder one at a time, by the names its parameters have.

Holds no more of a model than the tensor that was asked for, and compares nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.errors import FormatError, MismatchError, UsageError
from adapterhub.hub.files import disk
from adapterhub.models.fingerprint import weight_files
from adapterhub.models.linear import linear_sites
from adapterhub.models.sources import first_line

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """What a model of this config is made of. `linear` are its linear layers inside the blocks,
    (out, in) by name; `transposed` those that store (in, out); `parameters` has every shape;
    `tied` says of which other parameter one is a second name."""

    family: str
    linear: Mapping[str, tuple[int, int]]
    transposed: frozenset[str]
    parameters: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]
    prefix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensors:
    """The parameters in a folder's files: name -> (open file, name there)."""

    folder: Path
    places: Mapping[str, tuple[Any, str]]
    tied: Mapping[str, str]

    def shape(self, name: str) -> tuple[int, ...]:
        file, stored = self.places[name]
        return tuple(file.get_slice(stored).get_shape())

    def read(self, name: str) -> Any:
        file, stored = self.places[name if name in self.places else self.tied[name]]
        return file.get_tensor(stored)


def anatomy(folder: Path) -> Anatomy:
    """From the config alone. Raises UsageError for one that is no unquantized causal LM."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} is not a causal language model that transformers can read: "
            f"{first_line(error)}",
            hint="give a folder with config.json and *.safetensors, or a hub id",
        ) from error
    if getattr(config, "quantization_config", None):
        raise UsageError(
            f"{folder} is quantized, and its numbers are codes",
            hint="give the same model in float",
        )
    linear = linear_sites(model)
    tied = dict(model._tied_weights_keys or {}) if config.tie_word_embeddings else {}
    return Anatomy(
        family=config.model_type,
        linear=linear,
        transposed=frozenset(n for n in linear if isinstance(model.get_submodule(n), Conv1D)),
        parameters={
            name: tuple(parameter.shape)
            for name, parameter in model.named_parameters(remove_duplicate=False)
        },
        tied=tied,
        prefix=f"{model.base_model_prefix}.",
    )


@contextlib.contextmanager
def open_tensors(folder: Path, shape: Anatomy) -> Iterator[Tensors]:
    """Raises MismatchError unless the files hold every parameter, and in its shape."""
    from safetensors import SafetensorError, safe_open

    places: dict[str, tuple[Any, str]] = {}
    with contextlib.ExitStack() as files, disk("read", folder):
        for path in _files(folder):
            try:
                file = files.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise FormatError(
                    f"{path} is not a whole safetensors file: {first_line(error)}",
                    hint="fetch it again",
                ) from error
            for stored in file.keys():  # noqa: SIM118 - not a mapping
                name = _parameter(stored, shape)
                if name is not None:
                    places[name] = (file, stored)
        found = Tensors(folder=folder, places=places, tied=shape.tied)
        _check(found, shape)
        yield found


def _files(folder: Path) -> list[Path]:
    """Those of the index where there is one: a folder may hold the same weights twice."""
    everything = weight_files(folder)
    index = folder / _INDEX
    if index.is_file():
        try:
            named = {
                folder / name for name in json.loads(index.read_bytes())["weight_map"].values()
            }
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise FormatError(f"{index} is no index of shards", hint="fetch it again") from error
        return [path for path in everything if path in named]
    whole = folder / _WHOLE
    return [whole] if whole in everything else everything


def _parameter(stored: str, shape: Anatomy) -> str | None:
    """Some publishers store the body of a model alone, without the prefix that it has inside."""
    spellings = (stored, f"{shape.prefix}{stored}", stored.removeprefix(shape.prefix))
    return next((name for name in spellings if name in shape.parameters), None)


def _check(found: Tensors, shape: Anatomy) -> None:
    for name, wanted in shape.parameters.items():
        if name not in found.places:
            if name in shape.tied:
                continue
            raise MismatchError(
                f"{found.folder} holds no {name}, which a {shape.family} model of its config has",
                hint="the folder is incomplete, or its tensors have names of another library",
            )
        if found.shape(name) != wanted:
            raise MismatchError(
                f"{name} is {found.shape(name)} in {found.folder}, and its config says {wanted}",
                hint="config and weights do not belong together; fetch both again",
            )
