"""What a method does to a base, in one of four closed forms.

Several adapters add up: at a site each changes what the untouched base computes there by its own
difference, scaled by its weight, in no order.

Composition, export, engines and trust read patches and never a method's name, so an unknown
method's low-rank variant is composed and run without anyone here knowing it. Tensors are `Any`:
this module has never seen torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload


@dataclass(frozen=True, kw_only=True, slots=True)
class Affine:
    """y = row_scale * (W + scaling * B A) (column_scale * x) + bias, at a linear or conv2d site.

    A (rank, in), B (out, rank); conv2d: A (rank, in, kh, kw), B (out, rank, 1, 1).
    row_scale (out,), column_scale (in,) and bias (out,) are optional. LoRA (arXiv 2106.09685) sets
    A, B and scaling; DoRA (2402.09353) adds row_scale; IA3 (2205.05638) has scales and no A, B.
    """

    A: Any = None
    B: Any = None
    scaling: float = 1.0
    row_scale: Any = None
    column_scale: Any = None
    bias: Any = None

    @property
    def rank(self) -> int:
        return 0 if self.A is None else int(self.A.shape[0])

    @property
    def low_rank_only(self) -> bool:
        """Whether the whole effect is `scaling * B A`, so that deltas may be added."""
        scales = (self.row_scale, self.column_scale, self.bias)
        return self.A is not None and all(part is None for part in scales)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A module of its own beside a sublayer (bottleneck adapters, arXiv 1902.00751).

    y + module(y) where it reads what the sublayer answers, y + module(x) where it reads what the
    sublayer reads (the parallel form, arXiv 2110.04366). module maps (..., hidden) to the same.
    """

    module: Any
    reads: Literal["output", "input"] = "output"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Something before the input of the whole model: messages (role, text) before the conversation,
    embeddings (tokens, hidden), or keys and values (layers, 2, heads, tokens, width of a head).
    `template` is put round the last user message, in the place of its `{prompt}`.

    The input's own positions begin behind the virtual tokens.
    """

    messages: tuple[tuple[str, str], ...] = ()
    embeddings: Any = None
    key_values: Any = None
    template: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The full difference to a parameter of the module, of the parameter's own shape."""

    difference: Any
    parameter: str = "weight"


Patch = Affine | Block | Prompt | Weights


class Deltas(Sequence[Affine]):
    """The low-rank deltas of several adapters at one module, and what is computed from them all.

    That is computed once, whoever asks: the strategy that combines them, and the executor that
    measures what it made. n is the sum of their ranks; everything is float64, without scaling.
    """

    def __init__(self, patches: Sequence[Affine]) -> None:
        self._patches = tuple(patches)

    @classmethod
    def of(cls, patches: Sequence[Affine]) -> Deltas:
        return patches if isinstance(patches, cls) else cls(patches)

    @overload
    def __getitem__(self, index: int) -> Affine: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Affine]: ...
    def __getitem__(self, index: int | slice) -> Affine | Sequence[Affine]:
        return self._patches[index]

    def __len__(self) -> int:
        return len(self._patches)

    @property
    def ranks(self) -> list[int]:
        return [patch.rank for patch in self._patches]

    @cached_property
    def reads(self) -> Any:
        """(n, in): every A, one under the other."""
        return self._rows([patch.A for patch in self._patches])

    @cached_property
    def writes(self) -> Any:
        """(n, out): every B^T, one under the other. Columns of a wide matrix are slow to fill."""
        return self._rows([patch.B.mT for patch in self._patches])

    @cached_property
    def grams(self) -> tuple[Any, Any]:
        """A A^T and B^T B, both (n, n) and on the CPU, whatever the factors are on."""
        n = sum(self.ranks)
        both = self.reads.new_empty(2, n, n)
        both[0] = self.reads @ self.reads.mT
        both[1] = self.writes @ self.writes.mT
        on_A, on_B = both.cpu()
        return on_A, on_B

    def factors(self, weights: Sequence[float]) -> Any:
        """(n,) on the CPU: the weight times the scaling of each row's patch."""
        on_A, _ = self.grams
        pairs = zip(self._patches, weights, strict=True)
        return on_A.new_tensor([w * p.scaling for p, w in pairs for _ in range(p.rank)])

    def _rows(self, parts: Sequence[Any]) -> Any:
        # `double()` of nothing names float64 where torch must not be imported.
        empty = parts[0].new_empty(0).double()
        rows = empty.new_empty(sum(self.ranks), parts[0].shape[1])
        for own, part in zip(rows.split(self.ranks), parts, strict=True):
            own.copy_(part)
        return rows
