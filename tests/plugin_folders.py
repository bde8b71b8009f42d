"""Write installed distributions with a plugin inside, without building or installing anything.

Test equipment: knows what `importlib.metadata` reads, and nothing of hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path


def write_plugin(
    site: Path, module: str, source: str, *, name: str | None = None, version: str = "1.0"
) -> Path:
    """The module and its `.dist-info` in `site`, which belongs on a path; returns `site`."""
    info = site / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(source)
    distribution = module.replace("_", "-")
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[adapterhub]\n{name or module} = {module}\n")
    return site


def points_in(site: Path) -> Iterator[EntryPoint]:
    """The entry points of what lies in `site`, each with its distribution."""
    for distribution in distributions(path=[str(site)]):
        yield from distribution.entry_points.select(group="adapterhub")
