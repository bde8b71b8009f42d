"""What an adapter's files say, for the rules of a destination: shapes, scalings, dtypes, names.

Reads the config and the header alone, never a value; judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adapterhub.domain.destination import AdapterFacts, LowRank
from adapterhub.errors import FormatError
from adapterhub.formats.safetensors_header import Header, read_header
from adapterhub.hub.folder import LORA_METHOD, AdapterFolder
from adapterhub.hub.lora_layout import Shapes, read_layout, variant
from adapterhub.hub.lora_names import CostlyPatternError, by_pattern

_PAIRS = (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B"))


def read_facts(folder: AdapterFolder, *, name: str, family: str | None = None) -> AdapterFacts:
    """`family` is that of the base it is meant for, where that is known better than recorded.

    Raises FormatError for weights or patterns that break a rule.
    """
    config = folder.config or {}
    method = folder.manifest.method
    header = None if folder.weights_path is None else read_header(folder.weights_path)
    lora = method == LORA_METHOD and config.get("peft_type") == "LORA" and header is not None
    modules, others = _modules(header, config, name) if lora and header else ({}, _names(header))
    return AdapterFacts(
        name=name,
        method=method,
        base=folder.manifest.base.id,
        family=family or folder.manifest.base.family,
        config=config,
        modules=modules,
        others=others,
        dtypes=tuple(sorted({info.dtype for info in header.tensors.values()} if header else ())),
        files=tuple(sorted(path.name for path in folder.path.iterdir() if path.is_file())),
        variant=variant(config),
    )


def _names(header: Header | None) -> tuple[str, ...]:
    return tuple(header.tensors) if header else ()


def _modules(
    header: Header, config: Mapping[str, Any], name: str
) -> tuple[dict[str, LowRank], tuple[str, ...]]:
    layout = read_layout(header)
    try:
        found = {
            module: _low_rank(module, shapes, config) for module, shapes in layout.modules.items()
        }
    except CostlyPatternError as error:
        raise FormatError(
            f"{name}: its patterns could take forever to match",
            hint="ask its author to list module names instead",
        ) from error
    return found, (*layout.others, *layout.strangers)


def _low_rank(module: str, shapes: Shapes, config: Mapping[str, Any]) -> LowRank:
    """Rank and shape as the file has them, alpha as the config says."""
    pair = next(
        ((shapes[a], shapes[b]) for a, b in _PAIRS if a in shapes and b in shapes), (None, None)
    )
    first, second = pair
    whole = first is not None and second is not None and len(first) == len(second) == 2
    configured = int(by_pattern(module, config.get("rank_pattern"), config["r"]))
    rank = first[0] if first else configured
    alpha = float(by_pattern(module, config.get("alpha_pattern"), config["lora_alpha"]))
    return LowRank(
        rank=rank,
        alpha=alpha,
        scaling=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        shape=(second[0], first[1]) if whole and first and second else None,
        parts=tuple(sorted(shapes)),
    )
