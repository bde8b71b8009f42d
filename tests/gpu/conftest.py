"""A Phi-3 shaped model (fused projections, random weights) in NF4 on CUDA, made once a run.

`ADAPTERHUB_GPU_LAYERS=32` makes it the full size of Phi-3-mini; the default is two layers of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapterhub.domain.quantization import scheme_by_name

if TYPE_CHECKING:
    from adapterhub.models.loader import Base

LAYERS = int(os.environ.get("ADAPTERHUB_GPU_LAYERS", "2"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERHUB_HOME", str(path))
        yield path


@pytest.fixture(scope="session")
def source(home: Path) -> Path:
    return write_phi3(home / "phi3-shape", layers=LAYERS)


@pytest.fixture(scope="session")
def base(home: Path, source: Path) -> Base:
    import torch

    from adapterhub.models.bases import add_base
    from adapterhub.models.loader import load_base

    started = time.perf_counter()
    spec = add_base("phi3", str(source), scheme_by_name("nf4"))
    print(
        f"\n{spec.parameters / 1e9:.2f} B parameters stored in {spec.stored_bytes / 1e9:.2f} GB, "
        f"{time.perf_counter() - started:.0f} s"
    )
    started = time.perf_counter()
    loaded = load_base(spec)
    print(
        f"loaded in {time.perf_counter() - started:.1f} s, "
        f"{torch.cuda.memory_allocated() / 2**30:.2f} GiB"
    )
    return loaded


def write_phi3(folder: Path, *, layers: int) -> Path:
    """Phi-3-mini's widths with a small tokenizer."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    from adapterhub.testing.tiny import BOS, EOS, PAD, write_tokenizer

    write_tokenizer(folder)
    config = Phi3Config(
        num_hidden_layers=layers, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Phi3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder
