"""Store and load bases in bitsandbytes' NF4 and int8, as transformers writes and reads them.

Knows nothing of adapters. On a CPU the loaded 4-bit layers keep their canonical layout: with
AVX512-BF16, bitsandbytes would repack them at the first eval-mode forward and then run later
training steps through a kernel without autograd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterhub.domain.quantization import Scheme
from adapterhub.errors import CapabilityError


class BitsAndBytes:
    """`adapterhub.domain.protocols.Backend` for nf4 and int8."""

    def quantize(self, source: Path, out: Path, scheme: Scheme) -> None:
        """Norms and biases keep float32; embeddings and the head are stored in bfloat16."""
        import torch
        from transformers import AutoModelForCausalLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(
            source,
            quantization_config=_config(scheme),
            device_map={"": device},
            dtype=torch.float32,
            trust_remote_code=False,
        )
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.ndim >= 2:
                parameter.data = parameter.data.to(torch.bfloat16)
        model.save_pretrained(out)

    def load(self, folder: Path, scheme: Scheme, *, device: str, dtype: Any, dense: bool) -> Any:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            folder, device_map={"": device}, dtype=dtype, trust_remote_code=False
        )
        if dense:
            model = model.dequantize(dtype)
        elif scheme.name == "nf4":
            _settle(model, dtype=dtype)
        for parameter in model.parameters():
            # What was stored in another float type (embeddings, norms) follows the device's.
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        return model

    def weight(self, layer: Any) -> Any:
        import bitsandbytes as bnb
        import torch

        if isinstance(layer, bnb.nn.Linear4bit):
            return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(
                torch.float32
            )
        if isinstance(layer, bnb.nn.Linear8bitLt):
            # A forward pass moves the statistics from the weight to the layer's state.
            scales = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
            stored = layer.weight.data if layer.state.CB is None else layer.state.CB
            return stored.to(torch.float32) * (scales.to(torch.float32)[:, None] / 127)
        raise CapabilityError(
            f"{type(layer).__name__} is no layer of bitsandbytes",
            hint="report it to the plugin of the base's backend",
        )


def _config(scheme: Scheme) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if scheme.name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=bool(scheme.double_quant),
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _settle(model: Any, *, dtype: Any) -> None:
    """Compute in this device's dtype, and never repack (see the module's first lines)."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.compute_dtype = dtype
            module.compute_type_is_set = True
            module.support_avx512bf16_for_cpu = False
