"""The public surface for plugin writers: `hookimpl`, the records and the hook specifications.

A plugin is one module and one entry-point line in the group `adapterhub`; plugins/README.md
shows one from nothing.
"""

from __future__ import annotations

from adapterhub.domain.destination import Destination
from adapterhub.domain.method import (
    Capability,
    Method,
    QuantBackend,
    Strategy,
    Task,
    Trainer,
)
from adapterhub.plugin.markers import ADAPTERHUB_API, hookimpl

__all__ = [
    "ADAPTERHUB_API",
    "Capability",
    "Destination",
    "Method",
    "QuantBackend",
    "Strategy",
    "Task",
    "Trainer",
    "hookimpl",
]
