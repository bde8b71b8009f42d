"""mergekit's commands, in an environment of its own: adapters to a full model to an adapter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.bench.composing import DENSITY, RANK

# What its two commands import and a development environment of ours has not. It also declares
# sentencepiece, protobuf and datasets, which they never import.
MISSING = ("mergekit==0.1.5", "immutables==0.21")
SHOWN = ("mergekit", "immutables", "torch", "transformers", "peft", "safetensors", "pydantic")
METHODS = {"svd": "task_arithmetic", "ties": "ties"}
LAYERS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Seconds:
    """Of one way from adapters to an adapter: all of it, and what another layer would add."""

    whole: float
    layer: float

    @property
    def scaled(self) -> float:
        return self.whole + (LAYERS - 1) * self.layer


def timed(*command: str | Path) -> float:
    """Seconds that a command took; ends this process with its last words where it fails."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-12:])
        sys.exit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}:\n{said}")
    return seconds


def adapters(work: Path, count: int) -> list[Path]:
    """Named as `alone` looks for them."""
    return [work / f"1-{number}" for number in range(count)]


def mergekit_environment(home: Path) -> Path:
    """Its folder of commands, made where it is not there yet."""
    folder = home / "mergekit-environment"
    if not (folder / "pyvenv.cfg").exists():
        venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    borrowed = [place for place in sys.path if Path(place).name == "site-packages"]
    link = folder / "lib" / version / "site-packages" / "borrowed.pth"
    link.write_text("\n".join(borrowed) + "\n")
    timed(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", *MISSING)
    tell = "import sys; from importlib.metadata import version as v; print(', '.join("
    tell += "f'{name} {v(name)}' for name in sys.argv[1:]))"
    said = subprocess.run([python, "-c", tell, *SHOWN], check=True, capture_output=True, text=True)
    print(f"mergekit runs with {said.stdout}", end="")
    return folder / "bin"


def by_mergekit(commands: Path, work: Path, count: int, strategy: str) -> tuple[Seconds, str]:
    """Leaves the full model in `work`/full and the adapter in `work`/extracted."""
    base, cache = work / "base", work / "cache"
    full, extracted, plan = work / "full", work / "extracted", work / "plan.yaml"
    for folder in (cache, full, extracted):
        shutil.rmtree(folder, ignore_errors=True)
    parameters = {"weight": 1.0} | ({"density": DENSITY} if strategy == "ties" else {})
    members = [f"{base}+{adapter}" for adapter in adapters(work, count)]
    models = [{"model": member, "parameters": parameters} for member in members]
    method = {"merge_method": METHODS[strategy], "base_model": str(base), "dtype": "float32"}
    plan.write_text(json.dumps(method | {"models": models}))  # JSON is YAML
    merge, extract = commands / "mergekit-yaml", commands / "mergekit-extract-lora"
    merge_start, extract_start = timed(merge, "--help"), timed(extract, "--help")
    merging = timed(merge, plan, full, "--lora-merge-cache", cache, "--no-copy-tokenizer")
    # Left in, embeddings, head and norms are saved whole: no longer a plain LoRA.
    extracting = timed(
        extract, "--model", full, "--base-model", base, "--out-path", extracted,
        "--max-rank", str(RANK), "--exclude-regex", "embed_tokens|lm_head",
        "--skip-undecomposable",
    )  # fmt: skip
    written = sum(file.stat().st_size for d in (cache, full) for file in d.rglob("*.safetensors"))
    start = merge_start + extract_start
    seconds = Seconds(whole=merging + extracting, layer=max(0.0, merging + extracting - start))
    return seconds, (
        f"mergekit-yaml {merging:.1f} s, mergekit-extract-lora {extracting:.1f} s, "
        f"{start:.1f} s of it start; {written / 1e9:.2f} GB of full models written"
    )
