"""What a stored base's tensors become with adapters folded in, one tensor at a time.

Nothing of the base changes. Names, shapes and orientation are those of the plain model that is to
be written, whatever holds the base's weights; which patches are changes of weights was decided
before (`adapterhub.compose.foldable`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adapterhub.domain.patch import Affine, Patch, Weights
from adapterhub.errors import CapabilityError, MismatchError
from adapterhub.models.merge import affine_shape, difference, packed
from adapterhub.models.tensors import Anatomy

if TYPE_CHECKING:
    from adapterhub.models.loader import Base

# One adapter: its patches by module, and its weight.
Part = tuple[Sequence[tuple[str, Patch]], float]
# From a parameter (its own shape, float32) to what is added to it.
_Change = Callable[[Any], Any]


def head_of(base: Base) -> str:
    """The name of the output head's module."""
    head = base.model.get_output_embeddings()
    return next((name for name, module in base.model.named_modules() if module is head), "")


def must_untie(base: Base, parts: Sequence[Part]) -> bool:
    """Whether only the head changes of a weight that head and embedding share: it then needs one
    of its own."""
    head = base.model.get_output_embeddings()
    if head is None or head.weight is not base.model.get_input_embeddings().weight:
        return False
    name = head_of(base)
    return any(
        module == name and isinstance(patch, Affine)
        for patches, _ in parts
        for module, patch in patches
    )


class Folding:
    """The plain model's parameters with every part added: each changes what the untouched base has
    by its own difference, times its weight."""

    def __init__(self, base: Base, parts: Sequence[Part], shape: Anatomy) -> None:
        """`shape` is that of the model to write.

        Raises MismatchError for a patch of another base, CapabilityError for one that the plain
        model has no parameter for, and for one that changes one side of a shared weight.
        """
        self._base = base
        self._shape = shape
        self._head = head_of(base)
        self._changes: dict[str, list[_Change]] = {}
        for patches, weight in parts:
            for module, patch in patches:
                if isinstance(patch, Affine):
                    self._add_affine(module, patch, weight)
                elif isinstance(patch, Weights):
                    self._add_weights(module, patch, weight)
                else:
                    raise TypeError(f"{type(patch).__name__} is no change of weights")

    @property
    def changed(self) -> frozenset[str]:
        """The names of the parameters that are not the base's own any more."""
        return frozenset(self._changes)

    @property
    def names(self) -> list[str]:
        """Every parameter to write, in the model's order; a tied one is written once."""
        return [name for name in self._shape.parameters if name not in self._shape.tied]

    def read(self, name: str) -> Any:
        """A parameter of the merged model, in float32 and in the shape it is stored in."""
        own = self._own(name)
        total = own
        for change in self._changes.get(name, ()):
            total = total + change(own)
        return total

    def _own(self, name: str) -> Any:
        import torch

        module, _, leaf = name.rpartition(".")
        site = self._base.sites("linear").get(module)
        if site is not None and leaf == "weight":
            W = site.weight()
            return W.T if module in self._shape.transposed else W
        return self._base.model.get_parameter(name).detach().to(torch.float32)

    def _add_affine(self, module: str, patch: Affine, weight: float) -> None:
        matrix = self._matrix(module)
        found = affine_shape(patch, matrix)
        if matrix is None or found != matrix:
            raise _misfit(module, matrix, found)
        turned = module in self._shape.transposed

        def change(own: Any) -> Any:
            added = weight * difference(patch, own.T if turned else own)
            return added.T if turned else added

        if patch.A is not None or patch.row_scale is not None or patch.column_scale is not None:
            self._add(f"{module}.weight", change)
        if patch.bias is not None:
            self._add(f"{module}.bias", lambda own: weight * patch.bias.to(own))

    def _matrix(self, module: str) -> tuple[int, ...] | None:
        """(out, in) of a linear layer, the head among them."""
        site = self._base.sites("linear").get(module)
        if site is not None:
            return site.shape
        if module and module == self._head:
            return tuple(self._base.model.get_output_embeddings().weight.shape)
        return None

    def _add_weights(self, module: str, patch: Weights, weight: float) -> None:
        name = f"{module}.{patch.parameter}".removeprefix(".")
        site = self._base.sites("linear").get(module)
        # A layer that packs its weight is described as a linear layer is: (out, in).
        turned = (
            site is not None
            and patch.parameter == "weight"
            and packed(site)
            and module in self._shape.transposed
        )
        found = tuple(patch.difference.shape)
        found = found[::-1] if turned else found
        if name in self._shape.tied:
            raise CapabilityError(
                f"{name} is one tensor with {self._shape.tied[name]}, and the adapter changes it "
                "under the former name alone",
                hint="keep it attached; it cannot be merged",
            )
        expected = self._shape.parameters.get(name)
        if expected != found:
            raise _misfit(name, expected, found)

        def change(own: Any) -> Any:
            added = patch.difference.to(own)
            return weight * (added.T if turned else added)

        # Where head and embedding part, what changed their common weight goes to both.
        for parameter in {name, *self._second_names(name)}:
            self._add(parameter, change)

    def _second_names(self, name: str) -> list[str]:
        """Other names of the base's own parameter that the model to write stores apart."""
        own = self._base.parameters().get(name)
        return [
            other
            for other, parameter in self._base.model.named_parameters(remove_duplicate=False)
            if parameter is own and other in self.names
        ]

    def _add(self, name: str, change: _Change) -> None:
        if name not in self._shape.parameters:
            raise CapabilityError(
                f"the adapter adds {name}, and a plain {self._shape.family} model has none",
                hint="keep it attached; it cannot be merged",
            )
        self._changes.setdefault(name, []).append(change)


def _misfit(name: str, expected: object, found: object) -> MismatchError:
    return MismatchError(
        f"{name} of this base is {expected or 'missing'}, and the adapter's is {found}",
        hint="the adapter was made for another base",
    )
