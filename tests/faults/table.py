"""Plant every fault and show what peft, transformers and we say: `make faults`.

`--markdown` prints a table for a page, `--messages` what each of the three said.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from adapterhub.domain.manifest import MANIFEST_FILE
from adapterhub.formats.manifest import decode_manifest, encode_manifest
from tests.faults.draft import Draft
from tests.faults.fault import Fault, Use
from tests.faults.ground import Ground, copied
from tests.faults.in_configs import BASES, CONFIGS
from tests.faults.in_files import FILES
from tests.faults.loaders import (
    Case,
    Load,
    Outcome,
    by_peft,
    by_transformers,
    by_us,
    heard,
    said_by,
)  # fmt: skip
from tests.faults.measured import MEASURED

FAULTS: tuple[Fault, ...] = (*MEASURED, *FILES, *CONFIGS, *BASES)
OTHERS: dict[str, Load] = {"peft": by_peft, "transformers": by_transformers}


@dataclass(frozen=True)
class Row:
    fault: Fault
    outcomes: dict[str, Outcome]

    @property
    def loud(self) -> bool:
        """Whether what we say names the fault."""
        return names(self.fault, self.outcomes["adapterhub"])


def names(fault: Fault, outcome: Outcome) -> bool:
    return re.search(fault.says, outcome.message, re.DOTALL) is not None


def plant(fault: Fault, ground: Ground, work: Path) -> Case:
    """The folder with the fault in it, and how to use it. Other adapters lie beside it."""
    folder = copied(ground.adapter(fault.start), work / "faulty")
    for other in ("second", "ia3"):
        copied(ground.adapter(other), work / f"source-{other}")
    if not fault.probe:  # what it is to be found by is the fault, not that something was changed
        unprobed(folder)
    fault.plant(Draft(folder))
    ground.spec(fault.base)
    beside = work / "source-second"
    return Case(ground=ground, folder=folder, base=fault.base, use=fault.use, beside=beside)


def unprobed(folder: Path) -> None:
    manifest = folder / MANIFEST_FILE
    found = decode_manifest(manifest.read_bytes())
    manifest.write_bytes(encode_manifest(replace(found, probe=None)))


def told(fault: Fault, ground: Ground) -> Outcome:
    """What we say of it."""
    with tempfile.TemporaryDirectory() as work:
        found = by_us(plant(fault, ground, Path(work)))
    # A screen that does not name the fault has said nothing about it.
    silent = found.kind == "warn" and not names(fault, found)
    return Outcome("silent", found.message) if silent else found


def measure(fault: Fault, ground: Ground) -> Row:
    outcomes = {"adapterhub": told(fault, ground)}
    for library, load in OTHERS.items():
        with tempfile.TemporaryDirectory() as work:
            case = plant(fault, ground, Path(work))
            outcomes[library] = heard(load, case, usual=usual(load, fault.start, fault.use, ground))
    return Row(fault, outcomes)


@cache
def usual(load: Load, start: str, use: Use, ground: Ground) -> frozenset[str]:
    """What a library says of a sound adapter, used in the same way on its own base."""
    folder = ground.adapter(start)
    beside = ground.adapter("second")
    case = Case(ground=ground, folder=folder, base="tiny", use=use, beside=beside)
    return frozenset(said_by(load, case))


def counts(rows: Iterable[Row], library: str) -> str:
    found = Counter(row.outcomes[library].kind for row in rows)
    return f"{found['raise']} raise, {found['warn']} warn, {found['silent']} silent"


def show(rows: list[Row], *, markdown: bool, messages: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    libraries = [*OTHERS, "adapterhub"]
    if markdown:
        print("| fault | " + " | ".join(libraries) + " |\n|---|" + "---|" * len(libraries))
        for row in rows:
            cells = " | ".join(row.outcomes[library].kind for library in libraries)
            print(f"| {row.fault.name} | {cells} |")
    else:
        table = Table("fault", *libraries)
        for row in rows:
            kinds = [row.outcomes[library].kind for library in libraries]
            table.add_row(row.fault.name, *kinds, style=None if row.loud else "red")
        Console().print(table)
    for row in rows if messages else [row for row in rows if not row.loud]:
        print(f"\n{row.fault.name}")
        for library in libraries:
            print(f"  {library}: {row.outcomes[library].message.strip()[:600]}")
    for chosen, title in ((MEASURED, "planted in peft first"), (FAULTS, "all")):
        of = [row for row in rows if row.fault in chosen]
        print(f"\n{title}: {len(of)} faults")
        for library in libraries:
            print(f"  {library:<14}{counts(of, library)}")
    print(f"  named by us: {sum(row.loud for row in rows)} of {len(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--messages", action="store_true")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    chosen = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="faults-") as home:
        ground = Ground(Path(home))
        rows = [measure(fault, ground) for fault in FAULTS if chosen.only in fault.name]
    show(rows, markdown=chosen.markdown, messages=chosen.messages)
    versions = ", ".join(f"{name} {version(name)}" for name in ("peft", "transformers", "torch"))
    print(f"\n{versions}; {time.perf_counter() - started:.0f} s")
    raise SystemExit(not all(row.loud for row in rows))


if __name__ == "__main__":
    main()
