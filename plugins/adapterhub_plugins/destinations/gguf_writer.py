"""Write a LoRA, or a base, as GGUF through the `gguf` package.

An adapter is `general.type = adapter`, `adapter.type = lora`, `adapter.lora.alpha` and, for each
module, `<name>.weight.lora_a` (rank, in) and `.lora_b` (out, rank); llama.cpp adds
alpha / rank * B A x, the rank being that of B (src/llama-adapter.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.domain.destination import AdapterSource, BaseSource
from adapterhub.errors import CapabilityError, FormatError, MismatchError
from adapterhub_plugins.destinations.gguf_names import ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from torch import Tensor

# Written anew: what the copied keys would say of the source's own bytes.
_OWN_KEYS = ("general.architecture", "general.file_type", "general.quantization_version")


def write_adapter(source: AdapterSource, out: Path) -> list[str]:
    """Every scaling ends in B, by alpha = the largest rank, so that any rank may differ."""
    import gguf

    config = _config(source.base_config, source.facts.base)
    architecture = _architecture(str(config["model_type"]))
    names = _names(architecture, config)
    alphas = {module.scaling * module.rank for module in source.facts.modules.values()}
    # One alpha that fits all leaves B as it was trained; else what is left over is folded into B.
    alpha = min(alphas) if len(alphas) == 1 else float(max(_ranks(source)))
    writer = gguf.GGUFWriter(out, architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(source.facts.name)
    writer.add_description(f"a LoRA for {source.facts.base}, written by adapterhub")
    for module, A, B in source.pairs():
        low = source.facts.modules[module]
        left = low.scaling * low.rank / alpha
        name = names.get_name(module)
        if name is None:
            raise CapabilityError(
                f"llama.cpp's {architecture.name} has no tensor for {module}",
                hint="it was trained on another layout or family of this base",
            )
        folded = _rows(B if left == 1 else B * left, module, architecture, config)
        writer.add_tensor(f"{name}.weight.lora_a", A.contiguous().numpy())
        writer.add_tensor(f"{name}.weight.lora_b", folded.contiguous().numpy())
    _close(writer)
    return ["scalings that differ were folded into B"] if len(alphas) > 1 else []


def write_base(source: BaseSource, out: Path) -> None:
    """The stored weights in float32 under the names of the GGUF file that the base came from, with
    everything else of that file: tokenizer, template, sizes."""
    import gguf

    if source.file is None:
        raise CapabilityError(
            f"{source.spec.name} was not made from a GGUF file, whose tokenizer this would copy",
            hint="convert the original model with llama.cpp's convert_hf_to_gguf.py",
        )
    architecture = _architecture(source.spec.family)
    if architecture.shifted:
        raise CapabilityError(
            f"a base of the family {source.spec.family} is not written: it was never checked",
            hint="export the adapter alone, and take the publisher's GGUF of the base",
        )
    reader = gguf.GGUFReader(source.file)
    names = _names(architecture, source.config)
    wanted = {tensor.name: tensor for tensor in reader.tensors}
    writer = gguf.GGUFWriter(out, architecture.name, use_temp_file=True)
    _copy_keys(reader, writer)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    written = set()
    for parameter, tensor in source.tensors():
        name = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
        if name not in wanted:
            raise MismatchError(
                f"{source.file} has no tensor for {parameter}",
                hint="the base was not made from this file",
            )
        module = parameter.rpartition(".")[0]
        rows = _rows(tensor, module, architecture, source.config)
        writer.add_tensor(name, rows.contiguous().numpy())
        written.add(name)
    for name in wanted.keys() - written:
        if not name.startswith("rope_factors") and name != "rope_freqs.weight":
            raise MismatchError(
                f"{source.spec.name} holds nothing for {name} of {source.file}",
                hint="the base was not made from this file",
            )
        writer.add_tensor(name, wanted[name].data)
    _close(writer)


def _copy_keys(reader: Any, writer: Any) -> None:
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in _OWN_KEYS:
            continue
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)


def _close(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rows(
    tensor: Tensor, module: str, architecture: Architecture, config: Mapping[str, Any]
) -> Tensor:
    """Rows (out, ...) of a query or key projection in the order llama.cpp's rotation wants."""
    leaf = module.rpartition(".")[2]
    if not architecture.interleaved or leaf not in ("q_proj", "k_proj"):
        return tensor
    heads = int(config["num_attention_heads"])
    if leaf == "k_proj":
        heads = int(config.get("num_key_value_heads") or heads)
    halves = tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _architecture(family: str) -> Architecture:
    if family not in ARCHITECTURES:
        raise CapabilityError(
            f"how llama.cpp names the layers of a {family} base is not known here",
            hint=f"known: {', '.join(sorted(ARCHITECTURES))}",
        )
    return ARCHITECTURES[family]


def _names(architecture: Architecture, config: Mapping[str, Any]) -> Any:
    import gguf

    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    return gguf.get_tensor_name_map(number, int(config["num_hidden_layers"]))


def _config(config: Mapping[str, Any] | None, base: str) -> Mapping[str, Any]:
    if config is None:
        raise CapabilityError(
            f"GGUF needs the sizes of the base, and {base} is not on this machine",
            hint=f"add it: adapterhub base add NAME {base}, or name another with --base",
        )
    missing = next(
        (k for k in ("model_type", "num_hidden_layers", "num_attention_heads") if k not in config),
        None,
    )
    if missing:
        raise FormatError(f"the base's config.json has no {missing}", hint="add the base again")
    return config


def _ranks(source: AdapterSource) -> list[int]:
    return [module.rank for module in source.facts.modules.values()]
