"""Open a stored base to read its tensors, not to run it.

Float weights stay in their files, mapped into memory; quantized ones are loaded packed, since their
backend alone knows what the bits stand for. Neither makes a dense copy of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapterhub.domain.base import BaseSpec
from adapterhub.models.bases import base_folder
from adapterhub.models.loader import Base, load_folder
from adapterhub.models.quiet import quiet
from adapterhub.models.tensors import anatomy, open_tensors


@contextmanager
def mapped_base(spec: BaseSpec) -> Iterator[Base]:
    """The base on the CPU, its parameters as they are stored. What forward passes need beyond
    parameters, such as rotary frequencies, may be missing."""
    if spec.scheme.quantized:
        yield load_folder(base_folder(spec.name), spec, device="cpu", dense=False)
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = base_folder(spec.name)
    with open_tensors(folder, anatomy(folder)) as tensors, quiet():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        stored = {name: tensors.read(name) for name in tensors.places}
        model.load_state_dict(stored, strict=False, assign=True)
        model.tie_weights()
        model.requires_grad_(False)
        model.eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        yield Base(spec=spec, model=model, tokenizer=tokenizer, device="cpu", dense=True)
