"""Promises of a method about training: what moves, what gets a gradient, what stays."""

from __future__ import annotations

from typing import Any

from adapterhub.domain.method import Capability
from adapterhub.models.loader import Base
from adapterhub.testing import plain, practice
from adapterhub.testing.ground import Ground, agree, equal
from adapterhub.testing.promises import promise


class Training(Ground):
    @promise(needs=Capability.TRAIN)
    def test_exactly_its_parameters_train(self, base: Base) -> None:
        adapter = self.attach(base)
        before, parameters = adapter.state(), adapter.parameters()
        own = {id(tensor) for tensor in parameters.values()}
        frozen: set[str] = set()
        strange: set[str] = set()

        def look(_: Any) -> None:
            frozen.update(name for name, tensor in parameters.items() if not tensor.requires_grad)
            strange.update(
                name
                for name, tensor in base.model.named_parameters()
                if tensor.requires_grad and id(tensor) not in own
            )

        practice.train(base, adapter, on_step=look)
        assert strange == set(), f"these train though parameters() does not name them: {strange}"
        assert frozen == set(), f"parameters() names these, which do not train: {frozen}"
        after = adapter.state()
        still = [name for name in before if equal(before[name], after[name])]
        assert still == [], f"these are stored and never moved: {still}"

    @promise(needs=Capability.TRAIN)
    def test_every_parameter_gets_a_gradient(self, base: Base) -> None:
        adapter = self.attach(base)
        practice.train(base, adapter)
        gradients = practice.gradients(base, adapter)
        assert gradients.keys() == adapter.parameters().keys()
        without = [name for name, gradient in gradients.items() if not gradient.any()]
        assert without == [], f"no gradient reaches {without}"

    @promise(needs=Capability.TRAIN)
    def test_training_leaves_the_base_as_it_was(self, base: Base) -> None:
        before = plain.base_bytes(base.model)
        adapter = self.attach(base)
        practice.train(base, adapter)
        adapter.detach()
        assert plain.base_bytes(base.model) == before

    @promise(needs=Capability.TRAIN)
    def test_recomputing_activations_leaves_its_gradients_alone(self, base: Base) -> None:
        adapter = self.attach_shaken(base)
        kept = practice.gradients(base, adapter)
        recomputed = practice.gradients(base, adapter, checkpointing=True)
        _same_gradients(recomputed, kept)

    @promise(needs=Capability.TRAIN)
    def test_it_trains_under_autocast(self, base: Base) -> None:
        import torch

        adapter = self.attach_shaken(base)
        exact = practice.gradients(base, adapter)
        with torch.autocast(base.model.device.type, dtype=torch.bfloat16):
            rounded = practice.gradients(base, adapter)
        for name, gradient in rounded.items():
            assert gradient.dtype is torch.float32, f"the gradient of {name} is {gradient.dtype}"
        assert _flat(rounded).isfinite().all()
        assert float(torch.cosine_similarity(_flat(rounded), _flat(exact), dim=0)) > 0.9

    @promise(needs=Capability.TRAIN)
    def test_another_adapter_that_is_active_does_not_train_with_it(self, base: Base) -> None:
        one, two = self.attach_shaken(base, "one"), self.attach_shaken(base, "two", seed=1)
        before = two.state()
        two.activate()
        practice.train(base, one)
        assert all(equal(before[name], tensor) for name, tensor in two.state().items())


def _flat(gradients: dict[str, Any]) -> Any:
    import torch

    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def _same_gradients(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    agree(_flat(found), _flat(expected), within=1e-5, what="gradients with checkpointing")
