"""Open an engine over a loaded base.

One interface, `generate` and `score` (adapterhub.domain.protocols.Engine), for every caller.
"""

from __future__ import annotations

from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack
from adapterhub.runtime.reference import ReferenceEngine

__all__ = ["Rack", "ReferenceEngine", "open_engine"]


def open_engine(base: Base) -> ReferenceEngine:
    """The reference engine over `base`, with an empty rack to attach adapters to."""
    return ReferenceEngine(Rack(base), base.chat)
