"""Promises of a method about its patches: they are what it does, at every weight, merged too."""

from __future__ import annotations

import pytest

from adapterhub.domain.method import Capability
from adapterhub.domain.patch import Patch, Prompt
from adapterhub.domain.protocols import PrecedesInput
from adapterhub.errors import CapabilityError
from adapterhub.models.loader import Base
from adapterhub.models.merge import merge
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain
from adapterhub.testing.ground import Ground, agree, weighted
from adapterhub.testing.promises import promise


class Describing(Ground):
    def test_its_patches_are_what_it_does(self, dense: Base) -> None:
        """On the values that the base's stored weights stand for, against float64."""
        bare = plain.fold(dense.model, ())
        adapter = self.attach_shaken(dense)
        patches = self.patches(dense, adapter)
        if not plain.written(patches):
            assert all(isinstance(patch, Prompt) for _, patch in patches)
            return
        adapter.activate()
        expected = plain.answers(bare, [(patches, 1.0)])
        agree(plain.logits_of(dense.model), expected, within=2e-5, what="adapter and patches")

    def test_the_tokens_it_puts_before_the_input_are_counted(self, dense: Base) -> None:
        """Else a prompt that fits without them runs past the base's context."""
        adapter = self.attach_shaken(dense)
        patches = self.patches(dense, adapter)
        counted = adapter.virtual_tokens if isinstance(adapter, PrecedesInput) else 0
        assert counted == sum(ahead(patch) for _, patch in patches), (
            f"{self.method} has to say its virtual_tokens (PrecedesInput)"
        )

    @promise(tensors=True)
    def test_its_patches_can_be_read_from_what_is_stored(self, dense: Base) -> None:
        """Without a base they are the same, unless the method says that it needs one."""
        adapter = self.attach_shaken(dense)
        patches = self.patches(dense, adapter)
        config, state = adapter.config, adapter.state()
        adapter.detach()
        try:
            alone = list(method_of(self.method).patches(config, state))
        except CapabilityError:
            return
        expected = plain.answers(dense.model, [(patches, 1.0)])
        found = plain.answers(dense.model, [(alone, 1.0)])
        agree(found, expected, within=1e-9, what="patches without and with a base")

    @pytest.mark.parametrize("weight", [2.0, -0.5])
    def test_its_weight_scales_its_patches(self, base: Base, dense: Base, weight: float) -> None:
        adapter = self.attach_shaken(base)
        patches = self.patches(base, adapter)
        try:
            adapter.activate(weight)
        except CapabilityError:
            assert not plain.additive(patches), (
                f"{self.method} refuses a weight, though its patches are sums that one scales"
            )
            return
        assert plain.scaled(patches), "a prompt takes part or not: refuse any weight but 1"
        expected = plain.answers(dense.model, [(patches, weight)])
        agree(plain.logits_of(base.model), expected, within=1e-4, what=f"at weight {weight}")

    @promise(needs=Capability.MODULE_WEIGHTS)
    def test_a_module_can_have_a_weight_of_its_own(self, base: Base, dense: Base) -> None:
        adapter = self.attach_shaken(base)
        patches = self.patches(base, adapter)
        names = list(dict.fromkeys(name for name, _ in patches))
        weights = {name: (0.5, 0.0, -1.0)[i % 3] for i, name in enumerate(names)}
        try:
            adapter.activate(weights)
        except CapabilityError:
            # Where a weight means nothing, a module takes part or not.
            weights = {name: float(i % 2 == 0) for i, name in enumerate(names)}
            adapter.activate(weights)
        apart = [([(name, patch)], weights[name]) for name, patch in patches]
        expected = plain.answers(dense.model, apart)
        agree(plain.logits_of(base.model), expected, within=1e-4, what="weighed by module")
        adapter.activate()
        whole = plain.answers(dense.model, [(patches, 1.0)])
        agree(plain.logits_of(base.model), whole, within=1e-4, what="and whole again")

    @promise(lacks=Capability.MODULE_WEIGHTS)
    def test_weights_by_module_are_refused(self, base: Base) -> None:
        adapter = self.attach_shaken(base)
        names = [name for name, _ in self.patches(base, adapter)]
        with pytest.raises(CapabilityError):
            adapter.activate(dict.fromkeys(names, 1.0))

    @promise(needs=Capability.MERGE)
    @pytest.mark.parametrize("weight", [1.0, 0.5])
    def test_merged_it_answers_as_attached(
        self, place: tuple[str, str], base: Base, dense: Base, weight: float
    ) -> None:
        adapter = self.attach_shaken(dense)
        patches = self.patches(dense, adapter)
        weight = weighted(adapter, weight)
        attached = plain.logits_of(dense.model)
        adapter.detach()
        for into in (dense, base):
            merge(into, patches, weight=weight, dequantize=place[1] != "bf16")
            found = plain.logits_of(into.model)
            agree(found, attached, within=1e-4, what="merged and attached")

    @promise(needs=Capability.MERGE)
    def test_merging_into_a_quantized_base_asks_first(
        self, place: tuple[str, str], base: Base
    ) -> None:
        adapter = self.attach_shaken(base)
        patches = self.patches(base, adapter)
        adapter.detach()
        before = plain.base_bytes(base.model)
        if place[1] == "bf16":
            merge(base, patches)
            return
        with pytest.raises(CapabilityError):
            merge(base, patches)
        assert plain.base_bytes(base.model) == before

    @promise(lacks=Capability.MERGE)
    def test_merging_it_is_refused(self, dense: Base) -> None:
        adapter = self.attach_shaken(dense)
        patches = self.patches(dense, adapter)
        adapter.detach()
        before = plain.base_bytes(dense.model)
        with pytest.raises(CapabilityError):
            merge(dense, patches, dequantize=True)
        assert plain.base_bytes(dense.model) == before


def ahead(patch: Patch) -> int:
    """How many tokens a patch puts before the input."""
    if not isinstance(patch, Prompt):
        return 0
    embeddings = 0 if patch.embeddings is None else len(patch.embeddings)
    return embeddings + (0 if patch.key_values is None else int(patch.key_values.shape[3]))
