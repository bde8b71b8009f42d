"""Where adapterhub keeps its files on this machine.

Reads the environment when it is asked, never at import; creates nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "ADAPTERHUB_HOME"


def home() -> Path:
    """`$ADAPTERHUB_HOME`, or `~/.adapterhub`."""
    chosen = os.environ.get(HOME_VARIABLE)
    path = Path(chosen).expanduser() if chosen else Path.home() / ".adapterhub"
    return path.absolute()


def bases_dir() -> Path:
    """Base models, one folder each."""
    return home() / "bases"


def cache_dir() -> Path:
    """Pulled adapters; safe to delete whenever no command is running."""
    return home() / "cache"


def registry_dir() -> Path:
    """The remote `local`: a registry in a folder."""
    return home() / "registry"


def config_path() -> Path:
    """Named remotes."""
    return home() / "config.toml"


def credentials_path() -> Path:
    """Tokens, readable by their owner only."""
    return home() / "credentials.toml"
