"""Which modules a LoRA config speaks of, by peft's own rules for names and patterns.

Pure: sees names only. A pattern too costly to try is not tried, and that is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from adapterhub.domain.patterns import is_plain, value_for
from adapterhub.formats.config_rules import repetitions

# The first number in the name, as in peft: an expert of a mixture has one of its own behind it.
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")
_MAX_STEPS = 10**8
_MAX_REGEXES = 200


class CostlyPatternError(Exception):
    """Matching this pattern could take longer than anyone wants to wait."""


def is_target(module: str, config: Mapping[str, Any]) -> bool:
    """Whether peft would put a LoRA on this module. Raises CostlyPatternError."""
    if names_module(config.get("exclude_modules"), module):
        return False
    targets = config.get("target_modules")
    if targets == "all-linear" or isinstance(targets, str):
        return targets == "all-linear" or names_module(targets, module)
    # A name given whole is meant whichever block it is in.
    whole = module in (targets or ())
    return whole or (names_module(targets, module) and _in_layers(module, config))


def names_module(names: Any, module: str) -> bool:
    """A list names a module or its dotted end; a text is a pattern for the whole name."""
    if isinstance(names, str):
        return _matches(names, module)
    return any(module == name or module.endswith(f".{name}") for name in names or ())


def by_pattern(module: str, patterns: Mapping[str, Any] | None, default: Any) -> Any:
    """The value of the first pattern for the name or its dotted end. Raises CostlyPatternError."""
    regexes = [key for key in patterns or {} if not is_plain(key)]
    if len(regexes) > _MAX_REGEXES:
        raise CostlyPatternError
    for key in regexes:
        _refuse_costly(f".*{key}", module)
    return value_for(module, patterns, default)


def _matches(pattern: str, module: str) -> bool:
    _refuse_costly(pattern, module)
    return re.fullmatch(pattern, module) is not None


def _refuse_costly(pattern: str, module: str) -> None:
    if math.comb(len(module), min(repetitions(pattern), len(module) // 2)) > _MAX_STEPS:
        raise CostlyPatternError


def _in_layers(module: str, config: Mapping[str, Any]) -> bool:
    wanted = config.get("layers_to_transform")
    if wanted is None or wanted == []:
        return True
    found = _layer(module, config.get("layers_pattern"))
    return found is not None and found in (wanted if isinstance(wanted, list) else [wanted])


def _layer(module: str, names: Any) -> int | None:
    """The layer's number: after one of the names in `layers_pattern`, or after any name."""
    for name in [names] if isinstance(names, str) else names or ():
        found = re.match(rf"(?:.*?\.)?{re.escape(name)}\.(\d+)\.", module)
        if found:
            return int(found[1])
    found = None if names else _LAYER.match(module)
    return int(found[1]) if found else None
