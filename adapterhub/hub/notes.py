"""What is odd about an adapter and not wrong: said aloud, and no reason to refuse it.

Also which kinds of numbers weights may be. Sees configs, names and headers only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import Manifest
from adapterhub.formats.safetensors_header import Header
from adapterhub.hub.lora_layout import Layout
from adapterhub.hub.lora_names import CostlyPatternError, by_pattern
from adapterhub.hub.problems import Problem, few

# float8 without the scales that no adapter format has is but a coarse copy; integers are none.
_FLOATS = ("F64", "F32", "F16", "BF16")
_MAX_PATTERNS = 200  # of so many, each against every module
_TRANSPOSED = ("gpt2",)  # families whose layers are Conv1D, unless they are quantized


def add_notes(facts: dict[str, Any], notes: Iterable[str]) -> None:
    """Behind those that are there; the key appears with the first."""
    found = [*facts.get("notes", ()), *notes]
    if found:
        facts["notes"] = found


def family_of(manifest: Manifest, base: BaseSpec | None) -> str | None:
    return base.family if base else manifest.base.family


def config_notes(config: Mapping[str, Any] | None, family: str | None) -> Iterator[str]:
    turned = (config or {}).get("fan_in_fan_out")
    if family and turned is not None and bool(turned) != (family in _TRANSPOSED):
        yield (
            f"fan_in_fan_out is {str(bool(turned)).lower()}, which is wrong for {family}: peft "
            "looks at the layers and goes by them, other loaders may not"
        )


def layout_notes(config: Mapping[str, Any], layout: Layout) -> Iterator[str]:
    for key in ("rank_pattern", "alpha_pattern"):
        idle = [name for name in _first(config.get(key)) if not _fits(name, layout)]
        if idle:
            yield f"{key} names no module of the file: {few(idle)}"
    bias = config.get("bias", "none")
    if bias != "none" and not any(name.endswith(".bias") for name in layout.others):
        yield f"bias is {bias!r}, and the file has none: right only if the base has none either"


def _first(patterns: Mapping[str, Any] | None) -> Iterator[str]:
    return itertools.islice(patterns or (), _MAX_PATTERNS)


def _fits(pattern: str, layout: Layout) -> bool:
    try:
        return any(by_pattern(module, {pattern: True}, False) for module in layout.modules)
    except CostlyPatternError:
        return True  # which is a problem of its own


def dtype_problems(header: Header) -> Iterator[Problem]:
    """Integers may be an index beside the weights, so a file is judged by what is trained."""
    odd = {name: info.dtype for name, info in header.tensors.items() if info.dtype not in _FLOATS}
    trained = [name for name in odd if ".lora_" in name or len(odd) == len(header.tensors)]
    if trained:
        kinds = ", ".join(sorted({odd[name] for name in trained}))
        yield Problem(
            "odd-dtype",
            f"{len(trained)} tensors are {kinds}, which no adapter is trained in: {few(trained)}",
            f"ask its author for one in {', '.join(_FLOATS[1:])}",
        )
