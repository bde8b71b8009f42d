"""Throw mutated bytes at every reader: `python -m tests.fuzz.run --inputs 1000000`.

A failure is any error but AdapterhubError, over a second of processor time or more than 256 MB of
memory for one input; it is printed with the command that repeats it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import sys
import time
from pathlib import Path
from random import Random

from adapterhub.errors import AdapterhubError
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

MOST_SECONDS = 1.0
MOST_BYTES = 256 << 20
_BATCH = 500
# A reader that never returns is ended, with the place where it hung, after this for one batch.
_HUNG_SECONDS = 120
_MOST_FAILURES = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--only", type=int, help="one input, by its number")
    chosen = parser.parse_args()
    names = chosen.target or list(TARGETS)
    each = -(-chosen.inputs // len(names))
    for name in names:
        for good in TARGETS[name].good:
            TARGETS[name].read(good)  # and so imports and caches are not the first input's growth
    _limit_memory()
    failures = []
    for name in names:
        numbers = range(each) if chosen.only is None else [chosen.only]
        failures += _fuzz(name, TARGETS[name], numbers, chosen.seed)
    total = len(names) * (each if chosen.only is None else 1)
    print(f"{total:,} inputs, {len(failures)} failures")
    for failure in failures[:_MOST_FAILURES]:
        print(failure)
    return bool(failures)


def _fuzz(name: str, target: Target, numbers: range | list[int], seed: int) -> list[str]:
    failures = []
    refused, start = 0, time.monotonic()
    for count, number in enumerate(numbers):
        if count % _BATCH == 0:
            faulthandler.dump_traceback_later(_HUNG_SECONDS, exit=True)
            print(f"{name}: from {number:,}", file=sys.stderr, flush=True)
        data = mutated(target.good, Random(f"{seed} {name} {number}"))
        found = tried(target, data)
        refused += found == "refused"
        if found not in ("read", "refused"):
            again = f"python -m tests.fuzz.run --target {name} --seed {seed} --only {number}"
            failures.append(f"{name}: {found}\n  {again}\n  {data[:300]!r}")
    faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - start
    print(f"{name:<12} {len(numbers):>9,} inputs, {refused:>9,} refused, {seconds:6.1f} s")
    return failures


def tried(target: Target, data: bytes) -> str:
    """`read`, `refused`, or what went wrong."""
    start = time.process_time()
    try:
        target.read(data)
        found = "read"
    except AdapterhubError as error:
        found = "refused" if error.message and error.hint else f"no hint: {error!r}"
    except MemoryError:
        return f"more than {MOST_BYTES >> 20} MB"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    seconds = time.process_time() - start
    return found if seconds <= MOST_SECONDS else f"{seconds:.1f} s"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
