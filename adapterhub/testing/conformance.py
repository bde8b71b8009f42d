"""The conformance classes by their names; each is in the module of its own subject."""

from __future__ import annotations

from adapterhub.testing.methods import MethodConformance

__all__ = ["MethodConformance"]
