"""For plugin writers' tests: tiny bases made in code, and the promises a plugin is held to.

Importing this imports neither torch nor pytest; a class brings what it needs when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterhub.testing.methods import MethodConformance
    from adapterhub.testing.stores import StoreConformance
    from adapterhub.testing.strategies import StrategyConformance
    from adapterhub.testing.tasks import TaskConformance
    from adapterhub.testing.trainers import TrainerConformance

__all__ = [
    "MethodConformance",
    "StoreConformance",
    "StrategyConformance",
    "TaskConformance",
    "TrainerConformance",
]
_MODULES = {
    "MethodConformance": "methods",
    "StoreConformance": "stores",
    "StrategyConformance": "strategies",
    "TaskConformance": "tasks",
    "TrainerConformance": "trainers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
