"""The files that the README shows whole, each under a line that ends with its path in backticks."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_SHOWN = re.compile(r"`([\w./-]+)`:\n\n```(?:json|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_readme_files(folder: Path) -> list[Path]:
    """Write them below a folder."""
    written = []
    for name, text in _SHOWN.findall(README.read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written
