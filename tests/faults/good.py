"""A hundred good adapters, about which nothing may be said: each as some tool or release wrote it.

Trained ones are made once and written down in many ways; `quick` is the share that shows each kind.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapterhub.domain.manifest import MANIFEST_FILE
from adapterhub.errors import CapabilityError
from adapterhub.hub.folder import read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.models.quiet import quiet
from adapterhub.testing.tiny import temporary_home
from adapterhub.trust.attached import judge
from tests.faults.draft import Draft
from tests.faults.ground import ID, Ground, Made, copied, write_adapter
from tests.peft_releases import RELEASES, fields

SLOT = "good"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NAMES = ["q_proj", "v_proj", "down_proj"]
FEW = {"rank": 4, "targets": NAMES}
LORAS: dict[str, dict[str, Any]] = {
    "plain": FEW,
    "rslora": {**FEW, "rslora": True},
    "dora": {**FEW, "dora": True},
    "orthogonal": {**FEW, "init": "orthogonal"},
    "pissa": {**FEW, "init": "pissa"},
    "rank_pattern": {**FEW, "rank_pattern": {"v_proj": 2}},
    "alpha_pattern": {**FEW, "alpha_pattern": {"layers.1.self_attn.q_proj": 3}},
    "both_patterns": {**FEW, "rslora": True, "rank_pattern": {r".*layers\.0.*": 2},
                      "alpha_pattern": {"down_proj": 20}},
    "one_layer": {**FEW, "layers": [1]},
    "all_linear": {"rank": 2},
    "attention": {"rank": 8, "targets": "attention"},
    "high_alpha": {**FEW, "alpha": 64},
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "ia3": {}, "ln_tuning": {}, "prompt_tuning": {}, "prefix_tuning": {}, "p_tuning": {},
    "bottleneck": {}, "full": {}, "qlora": {"rank": 4},
    "prompt_design": {"system": "Answer in one word."},
}  # fmt: skip
PEFT_MADE: dict[str, dict[str, Any]] = {
    "modules_to_save lm_head": {"modules_to_save": ["lm_head"]},
    "modules_to_save embeddings": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "an adapted embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "trainable tokens": {"trainable_token_indices": [5, 9]},
    "lora_bias": {"lora_bias": True},
    "bias all, where there is none": {"bias": "all"},
    "a target pattern": {"target_modules": r".*\.layers\.\d+\.self_attn\.(q|v)_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "layers_pattern": {"layers_to_transform": [0], "layers_pattern": "layers"},
    "excluded modules": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
}
OLD = ("LORA", "IA3", "LN_TUNING", "PROMPT_TUNING", "PREFIX_TUNING")
FIVE = ("0.3", "0.6", "0.10", "0.17", "0.21")


@dataclass(frozen=True, kw_only=True)
class Good:
    """`write` puts the adapter into a folder."""

    name: str
    base: str
    write: Callable[[Ground, Path], object]
    quick: bool = False


def trained(made: Made, key: str, finish: Callable[[Draft], object] | None = None) -> Any:
    """An adapter trained once under `key`; one that is rewritten has lost its manifest, as a
    foreign one has none."""

    def write(ground: Ground, folder: Path) -> None:
        source = ground.home / "good" / key
        if not source.is_dir():
            write_adapter(ground, source, made)
        copied(source, folder)
        if finish is not None:
            (folder / MANIFEST_FILE).unlink()
            finish(Draft(folder))

    return write


def cast(dtype: torch.dtype) -> Callable[[Draft], None]:
    return lambda draft: draft.each(lambda _, tensor: tensor.to(dtype))


def idle(draft: Draft) -> None:
    """The modules of one layer were never trained."""
    draft.each(lambda n, t: torch.zeros_like(t) if "layers.0" in n and "lora_B" in n else t)


def as_of(kind: str, release: str) -> Callable[[Draft], None]:
    """The config as that release would have written it."""

    def rewrite(draft: Draft) -> None:
        kept = {k: v for k, v in draft.read_config().items() if k in fields(kind, release)}
        older = fields(kind, release) | kept | {"peft_type": kind}
        draft.config_text(json.dumps(older | {"base_model_name_or_path": ID}))

    return rewrite


def by_peft(options: dict[str, Any]) -> Callable[[Ground, Path], None]:
    """Made, shaken and saved by peft alone."""

    def write(ground: Ground, folder: Path) -> None:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            **{"r": 4, "target_modules": NAMES, "task_type": "CAUSAL_LM", **options}
        )
        bare = copy.deepcopy(ground.base("tiny").model)
        make = torch.Generator().manual_seed(3)
        with quiet(), torch.no_grad():
            model = get_peft_model(bare, config)
            for tensor in (t for t in model.parameters() if t.requires_grad):
                tensor.add_(torch.randn(tensor.shape, generator=make), alpha=0.05)
            model.save_pretrained(str(folder))
        draft = Draft(folder)
        draft.config(base_model_name_or_path=ID, auto_mapping=None)

    return write


def _all() -> Iterator[Good]:
    for name, options in LORAS.items():
        made = Made(options=options, steps=3)
        yield Good(name=f"lora {name}", base="tiny", write=trained(made, name), quick=True)
        for label, dtype in DTYPES.items():
            write = trained(made, name, cast(dtype))
            yield Good(name=f"lora {name} {label}", base="tiny", write=write,
                       quick=name == "plain")  # fmt: skip
        if name in ("plain", "dora", "rslora"):
            write = trained(made, name, idle if name != "dora" else cast(torch.float32))
            yield Good(name=f"lora {name}, a layer untrained", base="tiny", write=write,
                       quick=name == "plain")  # fmt: skip
    for method, options in METHODS.items():
        for base in ("tiny", "quantized"):
            if (method, base) in (("full", "quantized"), ("qlora", "tiny")):
                continue
            made = Made(method=method, options=options, base=base, steps=0)
            yield Good(name=f"{method} on {base}", base=base, quick=base == "tiny",
                       write=trained(made, f"{method}-{base}"))  # fmt: skip
    for base in ("fused", "gpt2", "quantized"):
        made = Made(options={"rank": 4}, base=base, steps=3)
        yield Good(name=f"lora on {base}", base=base, write=trained(made, f"lora-{base}"),
                   quick=True)  # fmt: skip
    for name, options in PEFT_MADE.items():
        yield Good(name=f"by peft: {name}", base="tiny", write=by_peft(options), quick=True)
    for kind in OLD:
        method = kind.lower()
        options = FEW if kind == "LORA" else {}
        made = Made(method=method, options=options, steps=3 if kind == "LORA" else 0)
        for release in RELEASES:
            if fields(kind, release):
                write = trained(made, f"old-{method}", as_of(kind, release))
                quick = kind == "LORA" and release in FIVE
                yield Good(name=f"{method} by peft {release}", base="tiny", write=write,
                           quick=quick)  # fmt: skip


GOOD: tuple[Good, ...] = tuple(_all())


def alarms(good: Good, ground: Ground, folder: Path) -> list[str]:
    """What verifying the adapter by its bytes, attaching it and asking it complain of. Empty."""
    spec = ground.base(good.base).spec
    good.write(ground, folder)
    found = [str(problem) for problem in verify_folder(folder).problems]
    found += [str(problem) for problem in verify_folder(folder, base=spec).problems]
    if found:
        return found
    engine = ground.engine(good.base)
    stored = read_folder(folder)
    try:
        engine.rack.attach(SLOT, stored)
    except CapabilityError:  # of this machine's plugin, said as "unchecked"
        return []
    try:
        with temporary_home(ground.home):
            problem = judge(engine, SLOT, stored, fresh=True).verdict.problem(good.name)
        return [str(problem)] if problem else []
    finally:
        engine.rack.detach(SLOT)
