"""What each conformance test asks a method to declare, and when that makes the test a skip.

Knows records and capabilities; it runs nothing and imports neither torch nor pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from adapterhub.domain.method import Capability, Method

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """`needs` and `lacks` are what the test is for: methods that declare the one and not the
    other. `tensors`: only adapters that hold some."""

    needs: Capability | None = None
    lacks: Capability | None = None
    tensors: bool = False

    def reason_to_skip(self, record: Method) -> str | None:
        if self.needs is not None and self.needs not in record.capabilities:
            return f"{record.name} does not declare {self.needs.name}"
        if self.lacks is not None and self.lacks in record.capabilities:
            return f"{record.name} declares {self.lacks.name}"
        if self.tensors and not record.tensors:
            return f"{record.name} declares no tensors"
        return None


def promise(
    *, needs: Capability | None = None, lacks: Capability | None = None, tensors: bool = False
) -> Callable[[F], F]:
    """Mark a test with what it is for."""

    def mark(function: F) -> F:
        function.promise = Promise(needs=needs, lacks=lacks, tensors=tensors)  # type: ignore[attr-defined]
        return function

    return mark


def promise_of(function: Any) -> Promise:
    found: Promise = getattr(function, "promise", Promise())
    return found


def promises_of(kit: type) -> Iterator[tuple[str, Promise]]:
    """(name, promise) of every test of a conformance class, in the order of their writing."""
    seen: dict[str, Promise] = {}
    for part in reversed(kit.__mro__):
        for name, value in vars(part).items():
            if name.startswith("test_"):
                seen[name] = promise_of(value)
    yield from seen.items()


def skips(kit: type, record: Method) -> dict[str, str]:
    """Test -> the reason why this method skips it on every base."""
    reasons = {name: promise.reason_to_skip(record) for name, promise in promises_of(kit)}
    return {name: reason for name, reason in reasons.items() if reason is not None}
