"""Whether a dense copy fits: counted from what the kernel says is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.models.memory import available_bytes, dense_fits


def test_free_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(
        "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    8000000 kB\n"
    )
    assert available_bytes(tmp_path / "meminfo") == 8_000_000 * 1024


@pytest.mark.parametrize("content", [None, "", "MemTotal: 16000000 kB\n"])
def test_free_memory_may_be_unknown(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "meminfo").write_text(content)
    assert available_bytes(tmp_path / "meminfo") is None


@pytest.mark.parametrize(
    ("parameters", "available", "fits"),
    [
        (1_000_000, 10_000_000, True),
        (1_000_000, 6_200_000, True),
        (1_000_000, 6_000_000, False),
        (1_000_000, 4_000_000, False),
        (10**12, None, True),
    ],
)
def test_a_third_of_the_memory_stays_free(
    parameters: int, available: int | None, fits: bool
) -> None:
    assert dense_fits(parameters, bytes_per_parameter=4, available=available) is fits
