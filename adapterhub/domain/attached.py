"""One adapter whose whole effect is changes at sites and parameters of a base.

Knows slots, weights and handles; what a change computes, and on which tensors, is its method's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from adapterhub.domain.manifest import CONFIG_FILE
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.sites import Handle
from adapterhub.errors import CapabilityError, FormatError, MismatchError, UsageError

T = TypeVar("T")
Shape = tuple[int, ...]
_EDITED = "it was cut or edited; pull it again or ask its author"
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


class SiteAdapter(ABC):
    """An `adapterhub.domain.protocols.AttachedAdapter`. Its changes are on the base only while it
    is active, so that an inactive one costs nothing and the order of activation is that of the
    effects where they feed each other.

    `per_row` says whether `changes` takes a weight for each row (MIXED_BATCH), `per_module` whether
    it takes one for each module (MODULE_WEIGHTS).
    """

    method: ClassVar[str]
    per_row: ClassVar[bool] = False
    per_module: ClassVar[bool] = False

    def __init__(self, base: LoadedBase, slot: str, config: Mapping[str, Any]) -> None:
        """Raises UsageError for a slot that holds an adapter of this method."""
        self._slots: set[str] = base.shared.setdefault(self.method, set())
        if slot in self._slots:
            raise UsageError(f"the slot {slot!r} is taken", hint="detach it first")
        self._slots.add(slot)
        self._handles: list[Handle] = []
        self.base = base
        self.slot = slot
        self.config = config

    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """The trainable tensors by name, in the order they always have."""

    @abstractmethod
    def changes(self, weight: Any) -> Iterable[Handle]:
        """Put the effect times `weight` on the base: a number or, with `per_row`, perhaps a tensor
        (rows, 1, 1) for values of (rows, length, width); with `per_module`, perhaps a mapping from
        the modules of its patches to numbers, which `taking_part` gives out."""

    def state(self) -> dict[str, Any]:
        return {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self.parameters().items()
        }

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        if isinstance(weight, Mapping) and not self.per_module:
            raise CapabilityError(
                f"{self.method} gives no module a weight of its own",
                hint="give the whole of it one",
            )
        factor = self._rows(weight) if isinstance(weight, Sequence) else weight
        self.deactivate()
        self._handles = list(self.changes(factor))

    def deactivate(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def detach(self) -> None:
        self.deactivate()
        self._slots.discard(self.slot)

    def _rows(self, weights: Sequence[float]) -> Any:
        if not self.per_row:
            raise CapabilityError(
                f"{self.method} gives no row of a batch its own weight", hint="run the rows apart"
            )
        tensor = next(iter(self.parameters().values())).detach()
        return tensor.new_tensor(list(weights)).reshape(-1, 1, 1)


def taking_part(weight: Any, parts: Iterable[tuple[str, T]]) -> Iterator[tuple[T, Any]]:
    """The parts, each with what it weighs, of an adapter in (module, part) pairs. `weight` is what
    `changes` was given; a part of a module that weighs 0 is left out."""
    for module, part in parts:
        own = weight[module] if isinstance(weight, Mapping) else weight
        if not isinstance(weight, Mapping) or own != 0:
            yield part, own


def check_keys(
    method: str,
    config: Mapping[str, Any],
    known: Iterable[str],
    *,
    required: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Hold a stored config to its method's keys: `known` ones may be there, `required` ones must,
    with values of their kind: `int`, `float`, `str`, `bool`, `list[str]` or `dict[str, int]`.

    Raises MismatchError for a key that asks for something the method does not know, FormatError
    for one that is missing or of another kind.
    """
    strange = sorted(key for key in config.keys() - {*known, *required} if config[key])
    if strange:
        raise MismatchError(
            f"{method} does not know {strange[0]!r} of this adapter's config, nor what it asks for",
            hint="it was made by a newer release or another tool; ask its author for one without",
        )
    for key, kind in required.items():
        if key not in config:
            raise lacks_key(method, key)
        if not _is(config[key], kind):
            raise FormatError(
                f"{CONFIG_FILE} of this {method} adapter: {key!r} is no {_word(kind)}",
                hint=_EDITED,
            )


def lacks_key(method: str, key: str) -> FormatError:
    return FormatError(f"{CONFIG_FILE} of this {method} adapter does not say {key!r}", hint=_EDITED)


def _is(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(_is(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(_is(item, inner[1]) for item in value.values())
    # Not isinstance, by which true is a number.
    return type(value) in ((int, float) if kind is float else (kind,))


def _word(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (list, dict):
        return f"{'list' if origin is list else 'table'} of {_WORDS[inner[-1]]}s"
    return _WORDS[kind]


def check_state(stored: Mapping[str, Any], expected: Mapping[str, Shape]) -> None:
    """Raises MismatchError unless names and shapes of the stored tensors agree both ways."""
    missing, extra = sorted(expected.keys() - stored), sorted(stored.keys() - expected)
    if not expected.keys() & stored:
        raise MismatchError(
            f"none of the adapter's {len(stored)} tensors belongs to a layer of this base "
            f"(its first is {extra[0] if extra else 'missing'})",
            hint="the adapter was made for another base or saved under another prefix",
        )
    if missing:
        raise MismatchError(
            f"the file lacks {len(missing)} of {len(expected)} tensors that its config calls for, "
            f"first {missing[0]}",
            hint="the file was cut or its config edited; pull it again or ask its author",
        )
    if extra:
        raise MismatchError(
            f"the file holds {len(extra)} tensors that its config does not use, first {extra[0]}",
            hint="loading it would ignore them; ask its author which of the two is right",
        )
    for name, shape in expected.items():
        if tuple(stored[name].shape) != tuple(shape):
            raise MismatchError(
                f"{name} has shape {tuple(stored[name].shape)}, but this base takes {tuple(shape)}",
                hint="the adapter was made for another base; `adapterhub show` names it",
            )
