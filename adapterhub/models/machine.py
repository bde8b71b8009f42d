"""What this machine can do with models: torch, its device, bitsandbytes, the processor.

Tries things on tensors of a few kilobytes; loads no base. Works where torch is not installed, and
then says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from adapterhub.domain.health import Check, State
from adapterhub.models.memory import available_bytes
from adapterhub.models.quiet import quiet

EXTRA = 'pip install "adapterhub[models]"'
# What a damaged installation of a library with native parts raises when it is imported or used.
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError)
_CAPABLE = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def model_checks() -> Iterator[Check]:
    """The libraries first, then what they can do here."""
    yield from _versions()
    torch = _imported("torch")
    if isinstance(torch, Check):
        yield torch
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield _device(torch)
    yield _four_bits(torch, device)
    yield _triton(device)
    yield processor()


def _versions() -> Iterator[Check]:
    """Each library of the [models] extra against what this version of adapterhub asks for."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = metadata.requires("adapterhub") or []
    except metadata.PackageNotFoundError:
        return
    for text in wanted:
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            continue
        optional = needed.marker is not None
        if optional and not _of_models(needed.marker):
            continue
        check = _version(needed.name, needed.specifier, optional=optional)
        if check.state != "ok" or optional:
            yield check


def _of_models(marker: Any) -> bool:
    return bool(marker.evaluate({"extra": "models"})) and not marker.evaluate({"extra": ""})


def _version(name: str, wanted: Any, *, optional: bool) -> Check:
    hint = EXTRA if optional else "pip install adapterhub"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        state: State = "absent" if optional else "broken"
        return Check(name=name, state=state, found="not installed", hint=hint)
    if not wanted.contains(version, prereleases=True):
        found = f"{version}, which is not {wanted}"
        return Check(name=name, state="broken", found=found, hint=f'pip install "{name}{wanted}"')
    return Check(name=name, state="ok", found=version)


def _imported(name: str) -> Any:
    """The module, or the check that says why there is none."""
    if not _installed(name):
        found = "none of what needs a model works; pull, push, search, show and verify do"
        return Check(name="models", state="absent", found=found, hint=EXTRA)
    try:
        with quiet():
            return importlib.import_module(name)
    except _BROKEN as error:
        found = f"{name} is installed and cannot be imported: {_line(error)}"
        return Check(name="models", state="broken", found=found, hint=f"pip install -U {name}")


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line), type(error).__name__)


def _device(torch: Any) -> Check:
    if not torch.cuda.is_available():
        free = available_bytes()
        memory = "" if free is None else f", {free / 1e9:.1f} GB of memory free"
        found = f"no GPU that torch {torch.__version__} can use; {os.cpu_count()} cores{memory}"
        return Check(name="device", state="note", found=found)
    try:
        torch.zeros(8, device="cuda").sum().item()
        free, total = torch.cuda.mem_get_info()
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    except _BROKEN as error:
        hint = "install a torch built for this driver, or go without: CUDA_VISIBLE_DEVICES="
        return Check(name="device", state="broken", found=f"CUDA: {_line(error)}", hint=hint)
    found = (
        f"{name} (compute capability {capability[0]}.{capability[1]}), "
        f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free; CUDA {torch.version.cuda}"
    )
    return Check(name="device", state="ok", found=found)


def _four_bits(torch: Any, device: str) -> Check:
    """Quantize a small matrix, multiply by it, and compare with the dense product."""
    if not _installed("bitsandbytes"):
        return Check(
            name="4 bits", state="absent", found="bitsandbytes is not installed", hint=EXTRA
        )
    try:
        with quiet():
            import bitsandbytes.functional as bnb

            weight = (
                torch.linspace(-1, 1, 64 * 64, device=device).reshape(64, 64).to(torch.bfloat16)
            )
            x = weight[:2]
            packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
            dense = bnb.dequantize_4bit(packed, state)
            product = importlib.import_module("bitsandbytes").matmul_4bit(x, packed.t(), state)
            # Half the largest gap of NF4's code, times the largest value, 1.
            off = float((dense - weight).abs().max())
            apart = float((product.float() - x.float() @ dense.float().t()).abs().max())
    except _BROKEN as error:
        found = f"bitsandbytes does not work on this {device}: {_line(error)}"
        return Check(name="4 bits", state="broken", found=found, hint="pip install -U bitsandbytes")
    if not (off <= 0.16 and apart <= 0.5):
        found = f"bitsandbytes computes wrongly on this {device}: {off:.2g} and {apart:.2g} off"
        return Check(name="4 bits", state="broken", found=found, hint="pip install -U bitsandbytes")
    found = f"NF4 quantizes and multiplies on the {device}"
    return Check(name="4 bits", state="ok", found=found)


def _triton(device: str) -> Check:
    if _installed("triton"):
        return Check(name="triton", state="ok", found=metadata.version("triton"))
    state: State = "note" if device == "cuda" else "absent"
    return Check(name="triton", state=state, found="not installed; only GPU kernels need it")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """The instructions that matter here, as Linux lists them."""
    try:
        flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return Check(name="processor", state="note", found="its instructions are not listed here")
    words = set(flags[1].split()) if flags else set()
    found = ", ".join(name for name in _CAPABLE if name in words) or "no wide vectors"
    if "avx512_bf16" not in words:
        return Check(name="processor", state="ok", found=found)
    trap = "bitsandbytes alone would repack 4-bit weights at the first evaluation and get later "
    return Check(
        name="processor",
        state="note",
        found=f"{found}; {trap}gradients wrong: bases loaded by adapterhub are kept from it",
    )
