"""An adapter's folder under the planter's hands: config, tensors, raw bytes.

Edits by hand what no library would write; knows no fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from adapterhub.domain.manifest import CONFIG_FILE, PEFT_PREFIX, WEIGHTS_FILE
from tests.adapter_files import with_header

Tensors = dict[str, Any]


@dataclass(frozen=True)
class Draft:
    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS_FILE

    def config(self, **changes: Any) -> None:
        """Set keys of the config."""
        stored = self.read_config() | changes
        self.config_text(json.dumps(stored))

    def read_config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / CONFIG_FILE).read_text())
        return found

    def config_text(self, text: str) -> None:
        (self.folder / CONFIG_FILE).write_text(text)

    def tensors(self, change: Callable[[Tensors], Tensors]) -> None:
        """Store what `change` makes of all tensors."""
        made = change(load_file(self.weights))
        save_file({name: t.contiguous().clone() for name, t in made.items()}, self.weights,
                  metadata={"format": "pt"})  # fmt: skip

    def each(self, change: Callable[[str, Any], Any]) -> None:
        """Store what `change` makes of each tensor, given its name."""
        self.tensors(lambda found: {name: change(name, t) for name, t in found.items()})

    def rename(self, old: str, new: str) -> None:
        self.tensors(lambda found: {name.replace(old, new): t for name, t in found.items()})

    def header(self, change: Callable[[dict[str, Any]], Any], *, body: bytes = b"") -> None:
        """Store what `change` makes of the header, a dict or its text, and `body` at the end."""
        data = self.weights.read_bytes()
        length = int.from_bytes(data[:8], "little")
        made = change(json.loads(data[8 : 8 + length]))
        text = made if isinstance(made, str) else json.dumps(made)
        self.weights.write_bytes(with_header(text.encode(), data[8 + length :] + body))


def module(layer: int, name: str) -> str:
    """The stored prefix of a layer's module, such as q_proj."""
    block = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
    return f"{PEFT_PREFIX}model.layers.{layer}.{block}.{name}"
