"""Promises of a method about several adapters on one base, of its own and of another method."""

from __future__ import annotations

from itertools import permutations

from adapterhub.domain.method import Capability
from adapterhub.errors import CapabilityError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain
from adapterhub.testing.ground import Ground, agree, equal, heard, weighted
from adapterhub.testing.promises import promise


class Together(Ground):
    def test_slots_do_not_disturb_each_other(self, base: Base) -> None:
        alone = {}
        for seed, slot in enumerate(("one", "two")):
            adapter = self.attach_shaken(base, slot, seed=seed)
            adapter.activate()
            alone[slot] = heard(base, adapter)
            adapter.detach()
        both = {s: self.attach_shaken(base, s, seed=i) for i, s in enumerate(("one", "two"))}
        for slot, adapter in both.items():
            adapter.activate()
            agree(heard(base, adapter), alone[slot], within=0.0, what=f"{slot} alone and with two")
            adapter.deactivate()

    @promise(needs=Capability.STACK)
    def test_two_adapters_answer_as_the_sum_of_their_patches(self, base: Base, dense: Base) -> None:
        one, two = self.attach_shaken(base, "one"), self.attach_shaken(base, "two", seed=1)
        parts = [(self.patches(base, adapter), 1.0) for adapter in (one, two)]
        if not all(plain.written(patches) for patches, _ in parts):
            self._both_have_a_say(base)
            return
        one.activate()
        parts[1] = (parts[1][0], weighted(two, 0.5))
        agree(
            plain.logits_of(base.model),
            plain.answers(dense.model, parts),
            within=1e-4,
            what="two adapters and the sum of their patches",
        )

    @promise(needs=Capability.STACK, tensors=True)
    def test_beside_another_method_it_answers_as_the_sum(self, base: Base, dense: Base) -> None:
        stranger, adapter = self.attach_stranger(base), self.attach_shaken(base)
        patches = method_of(self.beside).patches(stranger.config, stranger.state(), base)
        parts = [(list(patches), 0.5), (self.patches(base, adapter), 1.0)]
        expected = plain.answers(dense.model, parts)
        for first, second in ((stranger, adapter), (adapter, stranger)):
            for active in (first, second):
                active.activate(0.5 if active is stranger else 1.0)
            found = plain.logits_of(base.model)
            agree(found, expected, within=1e-4, what=f"{self.method} and {self.beside}")
            first.deactivate()
            second.deactivate()

    def test_adapters_leave_in_every_order(self, base: Base) -> None:
        before, bare = plain.base_bytes(base.model), heard(base)
        for order in permutations(("one", "two", "stranger")):
            attached = {
                "one": self.attach_shaken(base, "one"),
                "stranger": self.attach_stranger(base),
                "two": self.attach_shaken(base, "two", seed=1),
            }
            for adapter in attached.values():
                adapter.activate()
            for slot in order[:2]:
                attached.pop(slot).detach()
            [left] = attached.values()
            left.deactivate()
            assert equal(heard(base), bare), f"{order[:2]} left something behind"
            left.detach()
            assert plain.base_bytes(base.model) == before, f"{order} left something behind"

    @promise(needs=Capability.MIXED_BATCH)
    def test_a_row_of_a_mixed_batch_is_that_row_alone(self, base: Base) -> None:
        adapter, weights = self.attach_shaken(base), (1.0, -0.5)
        try:
            adapter.activate(weights[1])
        except CapabilityError:
            # Where a weight means nothing, one for each row means no more.
            self._refuses_rows(adapter, weights)
            return
        alone = []
        for weight in weights:
            adapter.activate(weight)
            alone.append(plain.logits_of(base.model))
        adapter.activate(weights)
        mixed = plain.logits_of(base.model)
        for row, expected in enumerate(alone):
            agree(mixed[row], expected[row], within=1e-5, what=f"row {row} and that row alone")
        adapter.deactivate()
        adapter.activate()
        agree(plain.logits_of(base.model), alone[0], within=1e-6, what="after a mixed batch")

    @promise(lacks=Capability.MIXED_BATCH)
    def test_weights_by_row_are_refused(self, base: Base) -> None:
        self._refuses_rows(self.attach_shaken(base), (1.0, 1.0))

    def _refuses_rows(self, adapter: object, weights: tuple[float, ...]) -> None:
        try:
            adapter.activate(weights)  # type: ignore[attr-defined]
        except CapabilityError:
            return
        raise AssertionError(f"{self.method} takes a weight for each row and refuses one for all")

    def _both_have_a_say(self, base: Base) -> None:
        """Messages have no token ids of their own: what one says is there beside the other's."""
        one, two = self.attach_shaken(base, "first"), self.attach_shaken(base, "second", seed=1)
        one.activate()
        two.activate()
        assert not equal(heard(base, one, two), heard(base, one)), "the second says nothing"
