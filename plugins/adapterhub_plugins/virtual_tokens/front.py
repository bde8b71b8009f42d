"""The virtual tokens before the input of one base: who has some there, and in what order.

Knows the decoder and its hooks, which are there only while something is active; how an adapter
comes by its embeddings or its keys and values is the adapter's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import CapabilityError, UsageError
from adapterhub_plugins.virtual_tokens.attention import (
    KEYWORD,
    Passage,
    before_attention,
    tokens_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from adapterhub_plugins.virtual_tokens.attention import Layers

_SHARED = "virtual_tokens"
_IMPLEMENTATIONS = ("sdpa", "eager")


class Source(Protocol):
    """Whoever has virtual tokens to put there."""

    def layers(self, ahead: Layers) -> Layers:
        """Its own keys and values in each layer, behind those of the tokens `ahead`."""


class Front:
    """[first active][second active] ... [input]; every later token sees every earlier one."""

    def __init__(self, base: LoadedBase) -> None:
        self.base = base
        self._slots: set[str] = set()
        self._active: dict[str, Source] = {}
        self._hooks: list[Any] = []
        # What stood before a cache's tokens when they were computed stands there to its end.
        self._before: WeakKeyDictionary[Any, tuple[tuple[Source, ...], Layers]] = (
            WeakKeyDictionary()
        )

    def take(self, slot: str) -> None:
        """Raises UsageError for a slot that is taken."""
        if slot in self._slots:
            raise UsageError(f"the slot {slot!r} is taken", hint="detach it first")
        self._slots.add(slot)

    def release(self, slot: str) -> None:
        self._slots.discard(slot)
        if not self._slots:
            self.base.shared.pop(_SHARED, None)

    def put(self, slot: str, source: Source) -> None:
        """Let its tokens stand last, whether they stood there before or not."""
        used = self.base.model.config._attn_implementation
        if used not in _IMPLEMENTATIONS:
            raise CapabilityError(
                f"virtual tokens do not work with {used} attention",
                hint='load the base with attn_implementation="sdpa"',
            )
        self._active.pop(slot, None)
        self._active[slot] = source
        if not self._hooks:
            self._hooks = self._hooked()

    def remove(self, slot: str) -> None:
        self._active.pop(slot, None)
        if not self._active:
            for hook in self._hooks:
                hook.remove()
            self._hooks = []

    def run(self, embeddings: Tensor, ahead: Layers = ()) -> Layers:
        """Keys and values that the base, with whatever else is attached, computes for embeddings
        (tokens, hidden). The input cannot change them, since attention looks back only."""
        import torch

        decoder, weight = self._decoder, self.base.model.get_input_embeddings().weight
        start, passage = tokens_of(ahead), Passage(ahead, capture=True)
        positions = torch.arange(start, start + len(embeddings), device=weight.device)
        hooks = [] if self._hooks else self._hooked()
        try:
            with _without_checkpointing(decoder):
                decoder(
                    inputs_embeds=embeddings.to(weight)[None],
                    position_ids=positions[None],
                    use_cache=False,
                    **{KEYWORD: passage},
                )
        finally:
            for hook in hooks:
                hook.remove()
        return [passage.captured[layer] for layer in range(len(self.base.sites("attention")))]

    @property
    def _decoder(self) -> Any:
        return self.base.model.base_model

    def _hooked(self) -> list[Any]:
        hooks = [self._decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True)]
        for layer, site in enumerate(self.base.sites("attention").values()):
            hook = partial(_before_attention, layer)
            hooks.append(site.module.register_forward_pre_hook(hook, with_kwargs=True))
        return hooks

    def _before_decoder(self, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if KEYWORD in kwargs:  # `run` has come first
            return None
        cache = kwargs.get("past_key_values")
        layers = self._layers(cache)
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = _positions(args[0] if args else None, kwargs, cache)
        passage = Passage(layers)
        changed = {"position_ids": positions + passage.tokens, KEYWORD: passage}
        return args, {**kwargs, **changed}

    def _layers(self, cache: Any) -> Layers:
        import torch

        sources = tuple(self._active.values())
        learning = torch.is_grad_enabled()
        if cache is not None and not learning and cache.get_seq_length() > 0:
            before = self._before.get(cache)
            if before is not None and before[0] == sources:
                return before[1]
        layers: Layers = ()
        for source in sources:
            own = source.layers(layers)
            layers = _one_behind_the_other(layers, own) if layers else own
        if cache is not None and not learning:
            self._before[cache] = (sources, layers)
        return layers


def front_of(base: LoadedBase) -> Front:
    """The one of this base, made when it is first asked for.

    Raises CapabilityError for a base whose attention cannot be reached.
    """
    if not base.sites("attention"):
        raise CapabilityError(
            f"where the attention of a {base.spec.family} model lies is not known",
            hint="choose another method, such as lora",
        )
    if _SHARED not in base.shared:
        base.shared[_SHARED] = Front(base)
    front: Front = base.shared[_SHARED]
    return front


def _before_attention(
    layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return before_attention(layer, args, kwargs)


def _positions(ids: Any, kwargs: dict[str, Any], cache: Any) -> Tensor:
    """Those that a decoder takes when it is given none."""
    import torch

    given = (ids, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
    tokens = next(tensor for tensor in given if tensor is not None)
    seen = 0 if cache is None else cache.get_seq_length()
    return torch.arange(tokens.shape[1], device=tokens.device)[None] + seen


def _one_behind_the_other(first: Layers, second: Layers) -> Layers:
    import torch

    return [
        (torch.cat((keys, more_keys.to(keys)), dim=2), torch.cat((values, more.to(values)), dim=2))
        for (keys, values), (more_keys, more) in zip(first, second, strict=True)
    ]


@contextmanager
def _without_checkpointing(decoder: Any) -> Iterator[None]:
    """A block that runs again would capture again; virtual tokens are few enough to be kept."""
    on = [module for module in decoder.modules() if getattr(module, "gradient_checkpointing", 0)]
    for module in on:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in on:
            module.gradient_checkpointing = True
