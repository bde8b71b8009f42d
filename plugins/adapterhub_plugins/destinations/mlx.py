"""mlx-lm: `adapters.safetensors` and `adapter_config.json`, and what they can hold.

A layer answers W x + scale * B' A' x with lora_a (in, rank) and lora_b (rank, out); rank and scale
are one number for all layers (mlx_lm/tuner/lora.py, utils.py). Not run here: it needs a Mac.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from adapterhub.domain.destination import AdapterFacts, AdapterSource, Finding
from adapterhub_plugins.destinations import rules
from adapterhub_plugins.destinations.rules import ok

_BLOCK = re.compile(r"model\.layers\.(?P<number>\d+)\.(?P<key>.+)")
_NAMES = "mlx-lm loads with strict=False and would leave it out"


class Mlx:
    """`adapterhub.domain.destination.AdapterExporter`."""

    def check(self, facts: AdapterFacts) -> Iterator[Finding]:
        yield rules.method(facts, "mlx-lm")
        if not rules.is_lora(facts):
            return
        yield rules.variant(facts, "mlx-lm")
        yield rules.dora(facts, "mlx-lm has DoRA in a form of its own, which is not written here")
        yield rules.saved(facts, _NAMES)
        yield rules.tokens(facts, _NAMES)
        yield rules.bias(facts, _NAMES)
        yield ok("scaling", "rsLoRA, patterns and ranks that differ: the export folds them")
        yield rules.blocks_only(facts, "only linear layers of the blocks are written")
        yield self._names(facts)
        yield rules.layout(facts, "mlx-lm")
        yield rules.dtype(facts, "mlx-lm")

    def _names(self, facts: AdapterFacts) -> Finding:
        odd = [module for module in facts.modules if not _BLOCK.fullmatch(module)]
        if odd:
            return rules.error(
                "names",
                f"{rules.few(odd)} are not named model.layers.N.*, so mlx-lm's names are not known",
                "use a base whose layers are named like Llama's",
            )
        return ok("names", "model.layers.N.*, as in mlx-lm")

    def export(self, source: AdapterSource, out: Path) -> list[str]:
        import torch
        from safetensors.torch import save_file

        modules = source.facts.modules
        rank = max(low.rank for low in modules.values())
        scalings = {low.scaling for low in modules.values()}
        scale = scalings.pop() if len(scalings) == 1 else 1.0
        tensors = {}
        for module, A, B in source.pairs():
            low = modules[module]
            # Rows of zeros give every layer the one rank; they add nothing.
            padding = (0, 0, 0, rank - low.rank)
            lora_a = torch.nn.functional.pad(A, padding)
            lora_b = torch.nn.functional.pad(B.T, padding) * (low.scaling / scale)
            tensors[f"{module}.lora_a"] = lora_a.T.contiguous()
            tensors[f"{module}.lora_b"] = lora_b.contiguous()
        out.mkdir()
        save_file(tensors, out / "adapters.safetensors", {"format": "mlx"})
        keys = {found["key"] for module in modules if (found := _BLOCK.fullmatch(module))}
        config = {
            "fine_tune_type": "lora",
            "num_layers": _layers(source),
            "lora_parameters": {
                "rank": rank, "scale": scale, "dropout": 0.0, "keys": sorted(keys)
            },
            "model": source.facts.base,
        }  # fmt: skip
        (out / "adapter_config.json").write_text(f"{json.dumps(config, indent=2)}\n")
        notes = ["mlx-lm itself was not run: it needs Apple silicon"]
        if len({low.rank for low in modules.values()}) > 1:
            notes.append(f"ranks that differ were filled up with zeros to {rank}")
        if scale == 1.0 and scalings:
            notes.append("scalings that differ were folded into lora_b")
        return notes


def _layers(source: AdapterSource) -> int:
    """How many of the last blocks mlx-lm gives the keys to: all, so that none is missed."""
    if source.base_config and "num_hidden_layers" in source.base_config:
        return int(source.base_config["num_hidden_layers"])
    return -1  # what mlx-lm's own `--num-layers -1` stores for all of them
