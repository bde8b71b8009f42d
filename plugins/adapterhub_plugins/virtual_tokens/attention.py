"""Keys and values in front of those that an attention module makes of its input.

Knows a module's arguments, its cache and its mask; where the keys and values come from is not its
business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    KeysValues = tuple[Tensor, Tensor]
    Layers = Sequence[KeysValues]

# The keyword under which a `Passage` travels from the decoder to its attention modules. As an
# argument it is also there when checkpointing calls a block a second time in the backward pass.
KEYWORD = "virtual_tokens"


class Passage:
    """What one forward pass of the decoder takes along.

    `layers` holds keys and values (1, heads, tokens, width) in front of each layer's own, or
    nothing. With `capture`, `captured` keeps each layer's own.
    """

    def __init__(self, layers: Layers, *, capture: bool = False) -> None:
        self.layers = layers
        self.tokens = tokens_of(layers)
        self.capture = capture
        self.captured: dict[int, KeysValues] = {}
        # All layers share a few masks, so these are extended once: id -> (mask, extended).
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}
        self._causal: Tensor | None = None

    def mask(self, mask: Tensor | None, hidden: Tensor) -> Tensor | None:
        """The mask (rows, 1, queries, keys), boolean or added, with columns that all queries see:
        also those of a sliding window, which never slides past the virtual tokens."""
        if not self.tokens:
            return mask
        if mask is None:
            return self._causal_mask(hidden)
        if id(mask) not in self._masks:
            self._masks[id(mask)] = (mask, _seen(mask, self.tokens))
        return self._masks[id(mask)][1]

    def _causal_mask(self, hidden: Tensor) -> Tensor | None:
        """sdpa takes no mask for a single query, which sees all, and for plainly causal ones: an
        assumption that keys in front of the queries' own break."""
        import torch

        queries = hidden.shape[1]
        if queries == 1:
            return None
        if self._causal is None:
            visible = torch.ones(
                queries, self.tokens + queries, dtype=torch.bool, device=hidden.device
            )
            self._causal = visible.tril(self.tokens)[None, None]
        return self._causal


class FrontedCache:
    """Stands in for a layer's cache, or for none: answers the keys and values in front of the
    others. The cache itself never holds them, so that all who count its tokens count the input's.
    """

    def __init__(self, cache: Any, passage: Passage, layer: int, *, masked: bool) -> None:
        self._cache = cache
        self._passage = passage
        self._layer = layer
        self._masked = masked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> KeysValues:
        if self._passage.capture:
            self._passage.captured[self._layer] = (keys, values)
        queries = keys.shape[2]
        if self._cache is not None:
            keys, values = self._cache.update(keys, values, layer_idx, *args, **kwargs)
        if not self._masked and queries > 1:
            # A static cache answers its free places too; without a mask nobody hides them.
            keys, values = keys[:, :, :queries], values[:, :, :queries]
        if not self._passage.tokens:
            return keys, values
        front_keys, front_values = self._passage.layers[self._layer]
        return _in_front(front_keys, keys), _in_front(front_values, values)


def tokens_of(layers: Layers) -> int:
    return int(layers[0][0].shape[2]) if layers else 0


def before_attention(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of an attention module with the passage's keys and values in them, or None."""
    passage = kwargs.get(KEYWORD)
    if passage is None:
        return None
    hidden = args[0] if args else kwargs["hidden_states"]
    mask = kwargs.get("attention_mask")
    changed = {name: value for name, value in kwargs.items() if name != KEYWORD}
    changed["attention_mask"] = passage.mask(mask, hidden)
    changed["past_key_values"] = FrontedCache(
        kwargs.get("past_key_values"), passage, layer, masked=mask is not None
    )
    return args, changed


def _seen(mask: Tensor, tokens: int) -> Tensor:
    import torch

    shape = (*mask.shape[:-1], tokens)
    seen = mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)
    return torch.cat((seen, mask), dim=-1)


def _in_front(front: Tensor, own: Tensor) -> Tensor:
    import torch

    return torch.cat((front.to(own).expand(own.shape[0], -1, -1, -1), own), dim=2)
