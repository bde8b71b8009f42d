"""Which numbers can begin a series of random ones."""

from __future__ import annotations

from adapterhub.errors import UsageError

LARGEST = (1 << 63) - 1


def check_seed(seed: int) -> None:
    """Raises UsageError for a seed that does not fit into 64 bits."""
    if not -LARGEST <= seed <= LARGEST:
        raise UsageError(
            f"{seed} is too large for a seed", hint=f"use a number from 0 to {LARGEST}"
        )
