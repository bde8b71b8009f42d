"""How a base's weights are stored: the schemes, and what differs between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapterhub.errors import UsageError

SchemeName = Literal["nf4", "int8", "bf16"]
SCHEMES: tuple[SchemeName, ...] = ("nf4", "int8", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A storage scheme; `block_size` and `double_quant` mean something for nf4 only."""

    name: SchemeName
    block_size: int | None = None
    double_quant: bool | None = None

    @property
    def quantized(self) -> bool:
        return self.name != "bf16"

    @property
    def bits(self) -> float:
        """Bits a quantized weight takes, statistics included."""
        if self.name == "bf16":
            return 16.0
        if self.name == "int8":
            return 8.02
        block = self.block_size or 64
        # One absmax per block: 32 bits, or 8 bits plus a 32-bit second-level one per 256 blocks.
        return 4 + (8 + 32 / 256 if self.double_quant else 32) / block

    def __str__(self) -> str:
        if self.name == "nf4":
            return (
                f"nf4 (block {self.block_size}{', double quantization' * bool(self.double_quant)})"
            )
        return self.name


def scheme_by_name(name: str) -> Scheme:
    """The default parameters of a scheme: NF4 is that of QLoRA (arXiv 2305.14314)."""
    if name == "nf4":
        return Scheme(name="nf4", block_size=64, double_quant=True)
    if name == "int8":
        return Scheme(name="int8")
    if name == "bf16":
        return Scheme(name="bf16")
    raise UsageError(f"no scheme is called {name!r}", hint=f"schemes: {', '.join(SCHEMES)}")
