"""Whether a LoRA's config and its tensors speak of the same modules, ranks and parts.

Sees names and shapes only, no values and no base; peft lets most of these pass in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapterhub.domain.manifest import PEFT_PREFIX
from adapterhub.formats.safetensors_header import Header
from adapterhub.hub.lora_names import CostlyPatternError, by_pattern, is_target, names_module
from adapterhub.hub.problems import Problem, few

_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_[AB]"
    r"|lora_magnitude_vector(?:\.weight)?)"
)
_LOW_RANK = {"lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B"}
_PULL = "the files do not belong together, or one is incomplete: pull or save the adapter again"
# With these, peft stores tensors of other names or shapes, so that rank and targets stay unchecked.
_VARIANTS = ("target_parameters", "use_bdlora", "kasa_config", "monteclora_config", "velora_config",
             "arrow_config", "layer_replication")  # fmt: skip

Shapes = dict[str, tuple[int, ...]]


@dataclass(slots=True)
class Layout:
    """A file's tensors sorted out: the parts of each module, the rest, and ill-named ones."""

    modules: dict[str, Shapes] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def idle(self, zero: Collection[str]) -> list[str]:
        """Modules that change nothing, given which tensors are all zero.

        B.A is zero where either is; a bias of its own, or a magnitude, can act without them.
        """
        return [
            module
            for module, shapes in self.modules.items()
            if any(f"{module}.{part}" in zero for part in _LOW_RANK & shapes.keys())
            and all(f"{module}.{part}" in zero for part in shapes.keys() - _LOW_RANK)
        ]


def read_layout(header: Header) -> Layout:
    layout = Layout()
    for name, info in header.tensors.items():
        found = _PART.fullmatch(name.removeprefix(PEFT_PREFIX))
        if not name.startswith(PEFT_PREFIX):
            layout.strangers.append(name)
        elif found:
            layout.modules.setdefault(found["module"], {})[found["part"]] = info.shape
        else:
            layout.others.append(name.removeprefix(PEFT_PREFIX))
    return layout


def layout_problems(config: Mapping[str, Any], layout: Layout) -> Iterator[Problem]:
    """Every disagreement, each kind once, naming a few of the modules."""
    if layout.strangers:
        yield Problem(
            "wrong-prefix",
            f"{len(layout.strangers)} tensors do not start with {PEFT_PREFIX}, so peft would serve "
            f"the bare base in their place: {few(layout.strangers)}",
            "save the adapter again with save_pretrained",
        )
    yield from _other_problems(config, layout)
    yield from _part_problems(config, layout)
    if not variant(config):
        try:
            yield from _target_problems(config, layout)
            yield from _rank_problems(config, layout)
        except CostlyPatternError:
            yield Problem(
                "costly-pattern",
                "the config's patterns could take forever to match, so they were not tried",
                "ask its author to list module names instead",
            )


def layout_facts(config: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """modules, rank and scaling: one number where all modules agree, else a sorted list."""
    facts: dict[str, Any] = {"modules": len(layout.modules)}
    odd = variant(config)
    if odd:
        return facts | {"targets": f"unchecked: {odd}"}
    try:
        pairs = {(_rank(module, config), _alpha(module, config)) for module in layout.modules}
    except CostlyPatternError:
        return facts | {"targets": "unchecked: costly pattern"}
    rs = config.get("use_rslora")
    facts["rank"] = _one({rank for rank, _ in pairs})
    facts["scaling"] = _one({alpha / (math.sqrt(rank) if rs else rank) for rank, alpha in pairs})
    return facts


def variant(config: Mapping[str, Any]) -> str | None:
    """The config key by which this is more than plain LoRA, if there is one."""
    return next((key for key in _VARIANTS if config.get(key)), None)


def _other_problems(config: Mapping[str, Any], layout: Layout) -> Iterator[Problem]:
    unexpected = [name for name in layout.others if not _is_expected(name, config)]
    if unexpected:
        yield Problem(
            "unexpected-tensor",
            f"{len(unexpected)} tensors have no place in the config and peft would ignore them: "
            f"{few(unexpected)}",
            _PULL,
        )
    for saved in config.get("modules_to_save") or ():
        if not any(f".{saved}." in f".{name}" for name in layout.others):
            yield Problem(
                "missing-tensor",
                f"modules_to_save names {saved}, the file has no such tensor",
                _PULL,
            )


def _is_expected(name: str, config: Mapping[str, Any]) -> bool:
    if ".lora_" in name:
        return variant(config) is not None
    if any(f".{saved}." in f".{name}" for saved in config.get("modules_to_save") or ()):
        return True
    if name.endswith(".bias"):
        return config.get("bias", "none") in ("all", "lora_only")
    if "trainable_tokens" in name:
        return bool(config.get("trainable_token_indices"))
    # peft stores the whole embedding beside a LoRA on it.
    module = name.removesuffix(".weight").removesuffix(".base_layer")
    targets = config.get("target_modules")
    return isinstance(targets, list) and names_module(targets, module)


def _part_problems(config: Mapping[str, Any], layout: Layout) -> Iterator[Problem]:
    dora, bias = bool(config.get("use_dora")), bool(config.get("lora_bias"))
    unpaired, extra, missing = [], [], []
    for module, shapes in layout.modules.items():
        if _pair(shapes) is None:
            unpaired.append(module)
        magnitude = any(part.startswith("lora_magnitude") for part in shapes)
        extra += [module] * ((magnitude and not dora) or ("lora_B.bias" in shapes and not bias))
        missing += [module] * ((dora and not magnitude) or (bias and "lora_B.bias" not in shapes))
    facts = (
        ("unpaired-tensor", unpaired, "have A without B or B without A"),
        ("unexpected-tensor", extra, "have a DoRA magnitude or a bias that the config denies"),
        (
            "missing-tensor",
            missing,
            "lack a DoRA magnitude or a bias that the config promises",
        ),
    )
    for code, modules, fact in facts:
        if modules:
            yield Problem(code, f"{len(modules)} modules {fact}: {few(modules)}", _PULL)


def _target_problems(config: Mapping[str, Any], layout: Layout) -> Iterator[Problem]:
    stray = [module for module in layout.modules if not is_target(module, config)]
    if stray:
        yield Problem(
            "weights-without-target",
            f"{len(stray)} modules in the file are no targets of the config, so peft would ignore "
            f"them: {few(stray)}",
            _PULL,
        )
    targets = config.get("target_modules")
    named = targets if isinstance(targets, list) else []
    empty = [name for name in named if not any(names_module([name], m) for m in layout.modules)]
    if empty or not layout.modules:
        what = (
            f"targets without any weights: {few(empty)}" if empty else "the file has no LoRA tensor"
        )
        yield Problem("target-without-weights", what, _PULL)
    yield from _layer_problems(config, layout, named)


def _layer_problems(
    config: Mapping[str, Any], layout: Layout, targets: list[str]
) -> Iterator[Problem]:
    """With layers_to_transform, every such layer must have something."""
    wanted = config.get("layers_to_transform")
    layers = wanted if isinstance(wanted, list) else [] if wanted is None else [wanted]
    if not targets:
        return
    empty = [
        layer for layer in layers if not any(f".{layer}." in module for module in layout.modules)
    ]
    if empty:
        yield Problem(
            "target-without-weights",
            f"layers without any weights: {few([*map(str, empty)])}",
            _PULL,
        )


def _rank_problems(config: Mapping[str, Any], layout: Layout) -> Iterator[Problem]:
    wrong = []
    for module, shapes in layout.modules.items():
        pair = _pair(shapes)
        rank = _rank(module, config)
        if pair and not (len(pair[0]) >= 2 <= len(pair[1]) and pair[0][0] == rank == pair[1][1]):
            wrong.append(f"{module} (rank {rank}; A {list(pair[0])}, B {list(pair[1])})")
    if wrong:
        yield Problem(
            "rank-mismatch",
            f"{len(wrong)} modules are not of the config's rank: {few(wrong)}",
            _PULL,
        )


def _pair(shapes: Shapes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    for a, b in (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")):
        if a in shapes and b in shapes:
            return shapes[a], shapes[b]
    return None


def _rank(module: str, config: Mapping[str, Any]) -> int:
    return int(by_pattern(module, config.get("rank_pattern"), config["r"]))


def _alpha(module: str, config: Mapping[str, Any]) -> float:
    return float(by_pattern(module, config.get("alpha_pattern"), config["lora_alpha"]))


def _one(values: set[Any]) -> Any:
    return next(iter(values)) if len(values) == 1 else sorted(values)
