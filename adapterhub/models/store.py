"""Write a base's weights in a scheme, and say what was written.

Quantized schemes go through the backend plugin that claims them; bf16 is plain transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TypedDict

from adapterhub.domain.base import Modality
from adapterhub.domain.protocols import Backend
from adapterhub.domain.quantization import Scheme
from adapterhub.errors import FormatError, UsageError
from adapterhub.models.fingerprint import weight_files
from adapterhub.models.sources import first_line
from adapterhub.plugin.catalog import catalog, load_target

SIDE_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


class Facts(TypedDict):
    """What a stored folder says of itself."""

    family: str
    modality: Modality
    parameters: int
    stored_bytes: int
    context_length: int


def backend_for(scheme: Scheme) -> Backend:
    backend: Backend = load_target(catalog().backend_for(scheme.name).target)()
    return backend


def write_base(source: Path, out: Path, scheme: Scheme) -> None:
    """Store `source` (a float folder) in `out`, tokenizer included."""
    if scheme.quantized:
        backend_for(scheme).quantize(source, out, scheme)
    else:
        _write_plain(source, out)
    for name in SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def check_source(folder: Path) -> None:
    """Raises NotFoundError for a folder without safetensors weights, FormatError for broken ones,
    UsageError for a model that transformers does not know, that is not a causal LM or that has
    no tokenizer. Nothing that the folder holds is run."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for file in weight_files(folder):
        _check_weights(file)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if _brings_code(folder / "config.json"):
            raise UsageError(
                f"{folder} is a model of its author's own code, which is never run",
                hint="bases are models that transformers itself knows",
            ) from error
        raise UsageError(
            f"{folder} is not a model that transformers can read: {first_line(error)}",
            hint="a base is a folder with config.json and *.safetensors, a GGUF file or a hub id",
        ) from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UsageError(
            f"a {config.model_type} model is not a causal language model",
            hint="bases are causal language models such as Phi-3, Llama, Mistral, Qwen or Gemma",
        )
    _check_tokenizer(folder)


def _check_weights(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise FormatError(
            f"{file} is not a whole safetensors file: {first_line(error)}", hint="fetch it again"
        ) from error


def _brings_code(config: Path) -> bool:
    try:
        return "auto_map" in json.loads(config.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _check_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} has no tokenizer that transformers can read",
            hint="put the model's tokenizer.json and tokenizer_config.json beside its weights",
        ) from error


def describe(folder: Path) -> Facts:
    """Facts of a stored folder that `check_source` let through."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return Facts(
        family=config.model_type,
        modality="causal-lm",
        parameters=sum(parameter.numel() for parameter in shape.parameters()),
        stored_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        context_length=int(getattr(config, "max_position_embeddings", 0) or 0),
    )


def _write_plain(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, trust_remote_code=False
    )
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(out)
