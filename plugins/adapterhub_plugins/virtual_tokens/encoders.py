"""What is trained, and how the stored `prompt_embeddings` come out of it.

Names and layers are those of peft's own encoders. Knows widths only; what the rows are used for is
its caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

STORED = "prompt_embeddings"


class Encoder:
    """Parameters by name and the rows (tokens, width) that they make, float32 throughout."""

    def __init__(
        self, parameters: Mapping[str, Tensor], rows: Callable[[Mapping[str, Tensor]], Tensor]
    ) -> None:
        self.parameters = dict(parameters)
        self._rows = rows

    def rows(self) -> Tensor:
        import torch

        device = next(iter(self.parameters.values())).device
        # What is stored does not depend on the precision of the pass that uses it.
        with torch.autocast(device.type, enabled=False):
            return self._rows(self.parameters)


def table(rows: Tensor) -> Encoder:
    """The rows themselves."""
    return Encoder(_trainable({STORED: rows}), lambda parameters: parameters[STORED])


def prompt_encoder(tokens: int, *, width: int, hidden: int, device: str, seed: int) -> Encoder:
    """P-tuning's: an embedding through three linear layers with ReLU between them."""
    with _seeded(seed):
        start = {
            "embedding.weight": _normal(tokens, width),
            **_linear("mlp_head.0", width, hidden),
            **_linear("mlp_head.2", hidden, hidden),
            **_linear("mlp_head.4", hidden, width),
        }

    def rows(p: Mapping[str, Tensor]) -> Tensor:
        x = _apply(p, "mlp_head.0", p["embedding.weight"]).relu()
        return _apply(p, "mlp_head.4", _apply(p, "mlp_head.2", x).relu())

    return Encoder(_trainable(start, device), rows)


def prefix_encoder(
    tokens: int, *, width: int, hidden: int, out: int, device: str, seed: int
) -> Encoder:
    """Prefix tuning's projection: an embedding through two linear layers with tanh between them."""
    with _seeded(seed):
        start = {
            "embedding.weight": _normal(tokens, width),
            **_linear("transform.0", width, hidden),
            **_linear("transform.2", hidden, out),
        }

    def rows(p: Mapping[str, Tensor]) -> Tensor:
        return _apply(p, "transform.2", _apply(p, "transform.0", p["embedding.weight"]).tanh())

    return Encoder(_trainable(start, device), rows)


def _trainable(start: Mapping[str, Tensor], device: str | None = None) -> dict[str, Tensor]:
    import torch
    from torch import nn

    return {
        # A copy: the loop writes into it, and a caller's tensor is the caller's.
        name: nn.Parameter(
            tensor.detach().to(device=device, dtype=torch.float32, copy=True), requires_grad=False
        )
        for name, tensor in start.items()
    }


def _normal(rows: int, width: int) -> Tensor:
    import torch

    return torch.randn(rows, width)


def _linear(name: str, width: int, out: int) -> dict[str, Tensor]:
    from torch import nn

    layer = nn.Linear(width, out)
    return {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}


def _apply(parameters: Mapping[str, Any], name: str, x: Tensor) -> Tensor:
    from torch.nn.functional import linear

    return linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Numbers are drawn on the CPU, so that one seed means one adapter on every device."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
