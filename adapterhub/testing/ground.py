"""What every test of a method stands on: tiny bases, adapters on them, and what is measured.

Tests themselves are in the modules beside this one, by subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapterhub.domain.evaluation import Message
from adapterhub.domain.method import Capability, Method
from adapterhub.domain.protocols import AttachedAdapter, RewritesMessages
from adapterhub.errors import CapabilityError
from adapterhub.models.loader import Base
from adapterhub.models.quiet import quiet
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain, practice
from adapterhub.testing.promises import promise_of
from adapterhub.testing.tiny import add_tiny_base

CONVERSATION: tuple[Message, ...] = (Message(role="user", content="abc"),)


class Ground:
    """`method` is the name in its record; `options` those of `adapterhub train`; `bases` are pairs
    of family and scheme.

    `seeded` says whether a fresh adapter draws random numbers; None leaves it open. `beside` is the
    method of the stranger that shares a base with this one.
    """

    method: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    bases: ClassVar[Sequence[tuple[str, str]]] = (("llama", "bf16"), ("llama", "nf4"))
    seeded: ClassVar[bool | None] = True
    beside: ClassVar[str] = "lora"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "place" in metafunc.fixturenames:
            ids = ["-".join(place) for place in self.bases]
            metafunc.parametrize("place", self.bases, ids=ids)

    @pytest.fixture(autouse=True)
    def _only_what_is_declared(self, request: pytest.FixtureRequest) -> None:
        reason = promise_of(request.function).reason_to_skip(self.record)
        if reason is None and "place" in request.fixturenames:
            quantized = request.getfixturevalue("place")[1] != "bf16"
            needed = Capability.QUANTIZED_BASE
            # The test for methods that lack it is the one that still has something to see.
            tested = promise_of(request.function).lacks is needed
            if quantized and needed not in self.record.capabilities and not tested:
                reason = f"{self.method} does not declare {needed.name}"
        if reason is not None:
            pytest.skip(reason)

    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("home")

    @pytest.fixture
    def base(self, place: tuple[str, str], home: Path) -> Base:
        """Freshly loaded; a quantized one keeps its quantized layers."""
        return add_tiny_base(*place, home, dense=False)

    @pytest.fixture
    def dense(self, place: tuple[str, str], home: Path) -> Base:
        """The same as floats: what the stored weights stand for."""
        return add_tiny_base(*place, home, dense=True)

    @property
    def record(self) -> Method:
        return catalog().methods[self.method]

    def config(self, base: Base) -> dict[str, Any]:
        return self.configure(base, self.options)

    def configure(self, base: Base, options: Mapping[str, Any]) -> dict[str, Any]:
        return method_of(self.method).new_config(base.spec, options)

    def attach(
        self,
        base: Base,
        slot: str = "one",
        *,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> AttachedAdapter:
        config = self.config(base) if config is None else config
        with quiet():
            return method_of(self.method).attach(base, slot, config, state=state, seed=seed)

    def attach_shaken(self, base: Base, slot: str = "one", *, seed: int = 0) -> AttachedAdapter:
        """An adapter as training leaves one: none of its numbers where it started."""
        adapter = self.attach(base, slot, seed=seed)
        practice.shake(adapter, seed=seed)
        return adapter

    def attach_stranger(self, base: Base, slot: str = "stranger") -> AttachedAdapter:
        """An adapter of another method, with numbers of its own."""
        method = method_of(self.beside)
        with quiet():
            adapter = method.attach(base, slot, method.new_config(base.spec, {}), seed=3)
        practice.shake(adapter, seed=3)
        return adapter

    def patches(self, base: Base, adapter: AttachedAdapter) -> list[tuple[str, Any]]:
        method = method_of(self.method)
        return list(method.patches(adapter.config, adapter.state(), base))


def heard(base: Base, *active: AttachedAdapter) -> Any:
    """Logits for fixed token ids, and for a conversation as the active adapters would have it."""
    import torch

    messages = CONVERSATION
    for adapter in active:
        if isinstance(adapter, RewritesMessages):
            messages = adapter.messages(messages)
    ids = torch.tensor([base.chat.prompt_ids(messages)], device=base.model.device)
    with torch.inference_mode():
        spoken = base.model(input_ids=ids, use_cache=False).logits[:, -1]
    return torch.cat([plain.logits_of(base.model).flatten(), spoken.flatten()])


def weighted(adapter: AttachedAdapter, weight: float) -> float:
    """Activate at this weight or, where it means nothing, at 1; returns which."""
    try:
        adapter.activate(weight)
    except CapabilityError:
        adapter.activate()
        return 1.0
    return weight


def apart(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def agree(found: Any, expected: Any, *, within: float, what: str) -> None:
    """Raises AssertionError saying how far apart they are."""
    distance = apart(found, expected)
    # Not `distance > within`, which NaN would pass.
    assert distance <= within, f"{what}: {distance:.2g} apart, where {within:g} is allowed"


def equal(a: Any, b: Any) -> bool:
    import torch

    return torch.equal(a, b)
