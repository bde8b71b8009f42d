"""One adapter of virtual tokens on one base.

Knows its encoder and its place in the front; what its rows become in each layer is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterhub.errors import CapabilityError
from adapterhub_plugins.virtual_tokens.encoders import STORED, Encoder
from adapterhub_plugins.virtual_tokens.front import Front

if TYPE_CHECKING:
    from torch import Tensor

    from adapterhub_plugins.virtual_tokens.attention import Layers


class AttachedTokens:
    """`adapterhub.domain.protocols.AttachedAdapter`. `in_layers` makes keys and values of the
    encoder's rows, for tokens behind those that are ahead."""

    def __init__(
        self,
        front: Front,
        slot: str,
        config: Mapping[str, Any],
        encoder: Encoder,
        in_layers: Callable[[Tensor, Layers], Layers],
    ) -> None:
        self.slot = slot
        self.config = config
        self._front = front
        self._encoder = encoder
        self._in_layers = in_layers

    @property
    def virtual_tokens(self) -> int:
        return int(self.config["num_virtual_tokens"])

    def parameters(self) -> Mapping[str, Any]:
        return self._encoder.parameters

    def state(self) -> dict[str, Any]:
        """The rows alone, which is all that is needed to use or to go on training them."""
        return {STORED: self._encoder.rows().detach().cpu().contiguous().clone()}

    def layers(self, ahead: Layers) -> Layers:
        return self._in_layers(self._encoder.rows(), ahead)

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        if weight != 1.0:
            raise CapabilityError(
                f"virtual tokens are there or not: a weight of {weight} means nothing to them",
                hint="leave out the weight",
            )
        self._front.put(self.slot, self)

    def deactivate(self) -> None:
        self._front.remove(self.slot)

    def detach(self) -> None:
        self.deactivate()
        self._front.release(self.slot)
