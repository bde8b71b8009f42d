"""What the configs of these methods share, as PEFT stores them: a head, and names of modules.

Knows names; which modules a base has is the caller's word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from adapterhub.domain.attached import check_keys
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.stored_modules import check_blocks, check_targets, is_named
from adapterhub.domain.targets import FAMILIES, Family
from adapterhub.errors import CapabilityError, MismatchError, UsageError

_SHARED = (
    "auto_map",
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "revision",
    "target_modules",
    "task_type",
)


def head(base: BaseSpec, peft_type: str) -> dict[str, Any]:
    return {
        "peft_type": peft_type,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.id,
        "revision": None if base.revision.startswith("sha256:") else base.revision,
        "inference_mode": True,
    }


def family_of(base: BaseSpec) -> Family:
    """Raises UsageError for a family whose layers are not known."""
    if base.family not in FAMILIES:
        raise UsageError(
            f"the layers of the model family {base.family!r} are not known",
            hint=f"known: {', '.join(FAMILIES)}; lora takes --targets for any other",
        )
    return FAMILIES[base.family]


def in_layers(paths: Sequence[str], layers: Sequence[int] | None) -> list[str]:
    """Paths inside a block, such as self_attn.k_proj, as targets in these blocks or in all.

    PEFT's rule is that a target is the whole name of a module or its end behind a dot.
    """
    if layers is None:
        return list(paths)
    return [f"{layer}.{path}" for layer in layers for path in paths]


def chosen(config: Mapping[str, Any], names: Iterable[str], *, what: str) -> list[str]:
    """The modules that the config's `target_modules` are about, in the order of `names`.

    Raises MismatchError for a target that is about none of them, and for no targets at all.
    """
    known = list(names)
    if config.get("target_modules") == "all-linear" and what == "linear layer":
        targets = known
    else:
        targets = _listed(config, "target_modules")
    for target in targets:
        if not any(is_named(name, [target]) for name in known):
            raise MismatchError(
                f"the base has no {what} called {target!r}",
                hint="the adapter was made for another base; `adapterhub show` names it",
            )
    if not targets:
        raise MismatchError(
            "the adapter's config names no target_modules",
            hint="it was cut or edited; pull it again or ask its author",
        )
    left_out = _listed(config, "exclude_modules")
    return [name for name in known if is_named(name, targets) and not is_named(name, left_out)]


def check_stored(
    config: Mapping[str, Any], modules: Collection[str], *, family: str | None
) -> None:
    """The modules of a file against the config's names. Raises MismatchError."""
    check_blocks(modules, family=family, layers=_blocks(config))
    if config.get("target_modules") != "all-linear":
        check_targets(modules, _listed(config, "target_modules"))


def _blocks(config: Mapping[str, Any]) -> set[int] | None:
    """The blocks that the targets number, if they number any."""
    targets = config.get("target_modules")
    heads = [name.partition(".")[0] for name in targets] if isinstance(targets, list) else []
    return {int(head) for head in heads} if heads and all(map(str.isdigit, heads)) else None


def _listed(config: Mapping[str, Any], key: str) -> list[str]:
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CapabilityError(
            f"this adapter's {key} is no list of names, which is all that is read here",
            hint="ask its author for one with a list, or load it with plain peft",
        )
    return value


def check_config(method: str, config: Mapping[str, Any], own: Iterable[str] = ()) -> None:
    """Raises for keys that PEFT does not write, and for those that ask for what is not done here;
    `own` are the method's."""
    check_keys(method, config, {*_SHARED, *own})
    if config.get("modules_to_save"):
        raise CapabilityError(
            f"this adapter uses modules_to_save, which {method} here does not attach",
            hint="ask its author for one without, or load it with plain peft",
        )
