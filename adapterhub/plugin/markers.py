"""The two decorators of the plugin interface and the name of its project.

This and `adapterhub.domain` is all a plugin module needs to import.
"""

from __future__ import annotations

import pluggy

PROJECT = "adapterhub"
ADAPTERHUB_API = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
