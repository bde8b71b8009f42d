"""Which methods skip which conformance tests, and why: `python -m adapterhub.testing.table`.

Follows from what the records declare; nothing is run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from adapterhub.domain.method import Capability, Method
from adapterhub.plugin.catalog import catalog
from adapterhub.testing.promises import Promise, promises_of


def skip_table(kit: type, records: Iterable[Method]) -> str:
    """A Markdown table: each test, the methods that it runs for, and those that skip it."""
    methods = sorted(records, key=lambda record: record.name)
    lines = ["| test | for methods that | skipped by |", "|---|---|---|"]
    lines += [
        f"| {name.removeprefix('test_').replace('_', ' ')} | {_whom(promise)} "
        f"| {_listed(m.name for m in methods if promise.reason_to_skip(m))} |"
        for name, promise in promises_of(kit)
    ]
    needed = Capability.QUANTIZED_BASE
    without = _listed(m.name for m in methods if needed not in m.capabilities)
    lines.append(f"| all of them on a quantized base | declare {needed.name} | {without} |")
    return "\n".join(lines) + "\n"


def _whom(promise: Promise) -> str:
    return " and ".join(_conditions(promise)) or "exist"


def _conditions(promise: Promise) -> Iterator[str]:
    if promise.needs is not None:
        yield f"declare {promise.needs.name}"
    if promise.lacks is not None:
        yield f"do not declare {promise.lacks.name}"
    if promise.tensors:
        yield "hold tensors"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def main() -> None:
    from adapterhub.testing.methods import MethodConformance

    records = (entry.record for entry in catalog().methods)
    sys.stdout.write(skip_table(MethodConformance, records))


if __name__ == "__main__":
    main()
