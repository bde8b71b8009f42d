"""Carry an adapter over to the other layout of its base's layers, fused or split, exactly.

Reads and writes what peft stores: LoRA and DoRA, (IA)^3, and any method that touches no layer in
which the layouts differ. The base's weights are not needed and never read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.compose.converted_folder import write_converted
from adapterhub.compose.layout_plan import LayoutPlan, Shape, Step, plan_layout
from adapterhub.compose.lora_parts import KEPT, LoraPart, read_lora
from adapterhub.compose.members import Member, read_state
from adapterhub.compose.peft_config import lora_config, tensor_names
from adapterhub.compose.relayout import divide_lora, divide_scale, join_lora, join_scale
from adapterhub.domain.layout import LAYOUTS, Heads, Layout, names_in
from adapterhub.domain.manifest import PEFT_PREFIX, BaseRecord
from adapterhub.errors import CapabilityError, FormatError
from adapterhub.hub.lora_names import names_module
from adapterhub.hub.staging import check_free, staged_folder

if TYPE_CHECKING:
    from torch import Tensor

_IA3 = ".ia3_l"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Layers that became layers, and the rank of these; None where the method has none."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    rank: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was written. `kept` layers are as they were."""

    folder: Path
    changes: tuple[Change, ...]
    kept: int
    rank: int | None


@dataclass(frozen=True, slots=True)
class _Made:
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    changes: tuple[Change, ...] = ()
    kept: int = 0
    rank: int | None = None


def convert_layout(
    source: Member,
    out: Path,
    *,
    layout: Layout,
    base: BaseRecord,
    heads: Heads | None = None,
    wide_queries: bool = False,
    allowed: tuple[str, ...] = (),
    overwrite: bool = False,
) -> Converted:
    """Write the adapter for a base of this layout, which `base` is; for what tells the sizes of
    parts, see `plan_layout`, whose errors are raised too.

    Raises CapabilityError for an adapter that this cannot be done to, naming what is in the way.
    """
    check_free(out, overwrite=overwrite)
    config = dict(source.folder.config or {})
    state = read_state(source)
    kind = config.get("peft_type")
    if kind == "LORA":
        parts, others = read_lora(config, state)
        _refuse_named(others, config, source)
        plan = plan_layout(
            {m: part.shape for m, part in parts.items()},
            layout,
            heads=heads,
            wide_queries=wide_queries,
        )
        made = _lora(parts, others, plan, config, base)
    elif kind == "IA3":
        shapes: dict[str, Shape] = {name: (len(v), None) for name, v in _scales(state).items()}
        plan = plan_layout(shapes, layout, heads=heads, wide_queries=wide_queries)
        made = _ia3(_scales(state), plan, config)
    else:
        _refuse_named(state, config, source)
        made = _Made(config, state)
    with staged_folder(out, overwrite=overwrite) as stage:
        write_converted(
            stage,
            source,
            config=_for_base(made.config, base),
            state=made.state,
            base=base,
            conversion=f"to-{layout}",
            name=out.absolute().name,
            allowed=allowed,
        )
    return Converted(folder=out, changes=made.changes, kept=made.kept, rank=made.rank)


def _lora(
    parts: Mapping[str, LoraPart],
    others: Mapping[str, Tensor],
    plan: LayoutPlan,
    config: Mapping[str, Any],
    base: BaseRecord,
) -> _Made:
    found = {module: parts[module] for module in plan.kept}
    changes = []
    for step in plan.steps:
        if plan.layout == "fused":
            after = {step.fused: join_lora(parts, step)}
        else:
            after = divide_lora(parts[step.fused], step)
        found |= after
        changes.append(_change(step, plan, parts, after, max(p.rank for p in after.values())))
    ranks = {module: part.rank for module, part in sorted(found.items())}
    made = lora_config(
        ranks,
        base=base,
        configs=[config],
        scalings={module: part.scaling for module, part in found.items()},
    )
    made |= {key: config[key] for key in KEPT if config.get(key)}
    if config.get("use_dora"):
        made["use_dora"] = True
    state = dict(others)
    for module, part in found.items():
        state |= zip(tensor_names(module), (part.A, part.B), strict=True)
        if part.magnitude is not None:
            state[f"{PEFT_PREFIX}{module}.lora_magnitude_vector"] = part.magnitude
    return _Made(made, state, tuple(changes), len(plan.kept), made["r"])


def _ia3(scales: Mapping[str, Tensor], plan: LayoutPlan, config: Mapping[str, Any]) -> _Made:
    inputs = [name for name in scales if names_module(config.get("feedforward_modules"), name)]
    stray = set(inputs).difference(plan.kept)
    if stray:
        raise CapabilityError(
            f"this adapter scales what {min(stray)} reads, which its other layout has no place for",
            hint="use it as it is",
        )
    found = {module: scales[module] for module in plan.kept}
    changes = []
    for step in plan.steps:
        if plan.layout == "fused":
            after = {step.fused: join_scale(scales, step)}
        else:
            after = divide_scale(scales[step.fused], step)
        found |= after
        changes.append(_change(step, plan, scales, after, None))
    targets = {"target_modules": sorted(found), "feedforward_modules": sorted(inputs)}
    state = {f"{PEFT_PREFIX}{module}{_IA3}": scale for module, scale in found.items()}
    dropped = ("exclude_modules", "layers_to_transform", "layers_pattern")
    kept = {key: value for key, value in config.items() if key not in dropped}
    return _Made({**kept, **targets}, state, tuple(changes), len(plan.kept))


def _scales(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(IA)^3's scales by module. Raises FormatError for anything else."""
    odd = next((name for name in state if not name.endswith(_IA3)), None)
    if odd:
        raise FormatError(f"{odd} is no part of an ia3 adapter", hint="save the adapter again")
    return {name[len(PEFT_PREFIX) : -len(_IA3)]: scale for name, scale in state.items()}


def _change(
    step: Step,
    plan: LayoutPlan,
    before: Iterable[str],
    after: Iterable[str],
    rank: int | None,
) -> Change:
    own = set(before)
    parts = tuple(s.module for s in step.sections if s.module in own)
    return Change(
        before=parts if plan.layout == "fused" else (step.fused,), after=tuple(after), rank=rank
    )


def _for_base(config: Mapping[str, Any], base: BaseRecord) -> dict[str, Any]:
    if "base_model_name_or_path" not in config:
        return dict(config)
    commit = base.revision if base.revision and ":" not in base.revision else None
    return {**config, "base_model_name_or_path": base.id, "revision": commit}


def _refuse_named(state: Iterable[str], config: Mapping[str, Any], source: Member) -> None:
    """Tensors and names that no arithmetic here is for must be of layers that both layouts have."""
    listed = [config.get(key) or () for key in ("target_modules", *KEPT)]
    lora = config.get("peft_type") == "LORA"
    names = [name for names in listed[lora:] if isinstance(names, (list, dict)) for name in names]
    stored = [part for name in state for part in _levels(name)]
    found = [
        name
        for layout in LAYOUTS
        for name in names_in(layout, [*stored, *(n for n in names if isinstance(n, str))])
    ]
    if found:
        method = source.folder.manifest.method
        raise CapabilityError(
            f"{source.ref}, a {method} adapter, changes {found[0]} by more than a LoRA or ia3, "
            "which is not converted",
            hint="use it on a base of its own layout",
        )


def _levels(name: str) -> list[str]:
    """The name and every module above it: a.b.weight is of a.b and of a."""
    steps = name.split(".")
    return [".".join(steps[:count]) for count in range(1, len(steps) + 1)]
