"""How much memory this machine has left, and whether a dense copy of a base fits.

Counts bytes only; it has never seen a tensor.
"""

from __future__ import annotations

from pathlib import Path

# What stays free for activations, adapters and everybody else on the machine.
HEADROOM = 0.35


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that can be taken without swapping (Linux's MemAvailable); None if unknown."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def dense_fits(parameters: int, *, bytes_per_parameter: int, available: int | None) -> bool:
    """Whether `parameters` in float fit beside the rest. Unknown memory counts as enough."""
    if available is None:
        return True
    return parameters * bytes_per_parameter <= available * (1 - HEADROOM)
