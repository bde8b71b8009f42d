"""How many attention heads a stored base has, by its config alone."""

from __future__ import annotations

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.layouts import Heads
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.files import disk
from adapterhub.models.bases import base_folder


def heads_of(base: BaseSpec) -> Heads | None:
    """None for a family whose config has other names for them. Raises FormatError for one that is
    no JSON."""
    file = base_folder(base.name) / "config.json"
    with disk("read", file):
        config = loads_strict(file.read_bytes(), name=str(file))
    queries = config.get("num_attention_heads") if isinstance(config, dict) else None
    groups = config.get("num_key_value_heads") or queries if queries else None
    if isinstance(queries, int) and isinstance(groups, int) and 0 < groups <= queries:
        return Heads(queries=queries, groups=groups)
    return None
