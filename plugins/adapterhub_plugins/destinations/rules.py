"""Rules that several destinations share, each a function from an adapter's facts to a finding.

Knows adapters; what a destination does with one is in its own module.
"""

from __future__ import annotations

from collections.abc import Collection

from adapterhub.domain.destination import AdapterFacts, Finding
from adapterhub.domain.targets import FAMILIES

_DIGITS = "0123456789"
_FLOATS = {"F32", "F16", "BF16"}
_OUTSIDE = ("embed_tokens", "lm_head", "wte", "word_embeddings")
_RETRAIN = "train it without: this cannot be folded into A and B"


def ok(rule: str, reason: str) -> Finding:
    return Finding(rule=rule, severity="ok", reason=reason)


def warning(rule: str, reason: str, fix: str) -> Finding:
    return Finding(rule=rule, severity="warning", reason=reason, fix=fix)


def error(rule: str, reason: str, fix: str) -> Finding:
    return Finding(rule=rule, severity="error", reason=reason, fix=fix)


def few(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def leaves(facts: AdapterFacts) -> set[str]:
    """The last names of the adapted modules: q_proj, down_proj."""
    return {module.rpartition(".")[2] for module in facts.modules}


def ranks(facts: AdapterFacts) -> list[int]:
    return sorted({module.rank for module in facts.modules.values()})


def is_lora(facts: AdapterFacts) -> bool:
    return facts.method == "lora" and bool(facts.modules)


def method(facts: AdapterFacts, who: str) -> Finding:
    """All else is about LoRA, so where this fails nothing else is asked."""
    if is_lora(facts):
        return ok("method", f"{who} serves LoRA")
    fixes = {
        "composition": f"merge it first: adapterhub stack {facts.name} -o DIR",
        "prompt_design": "send its text as the system message; `adapterhub show` prints it",
    }
    return error(
        "method",
        f"{who} serves LoRA alone, and this is {facts.method}",
        fixes.get(facts.method, "train it as a LoRA: adapterhub train --method lora"),
    )


def variant(facts: AdapterFacts, who: str) -> Finding:
    keys = [
        key for key in (facts.variant, "alora_invocation_tokens") if facts.config.get(key or "")
    ]
    if not keys:
        return ok("variant", "plain A and B")
    return error(
        "variant",
        f"{keys[0]} makes this more than plain LoRA, and {who} would not know",
        f"train it without {keys[0]}",
    )


def dora(facts: AdapterFacts, reason: str) -> Finding:
    stored = any(
        part.startswith("lora_magnitude") for m in facts.modules.values() for part in m.parts
    )
    if facts.config.get("use_dora") or stored:
        return error("dora", reason, "train it without dora: its change is of full rank")
    return ok("dora", "no DoRA")


def saved(facts: AdapterFacts, reason: str) -> Finding:
    """Whole layers, embeddings or tokens stored beside the LoRA."""
    named = facts.config.get("modules_to_save") or ()
    if named or facts.others:
        what = f"modules_to_save {few(named)}" if named else few(facts.others)
        return error("whole layers", f"{what}: {reason}", _RETRAIN)
    return ok("whole layers", "none beside A and B")


def tokens(facts: AdapterFacts, reason: str) -> Finding:
    grown = "added_tokens.json" in facts.files or facts.config.get("trainable_token_indices")
    if grown:
        return error("added tokens", reason, "train with the base's own vocabulary")
    return ok("added tokens", "the base's own vocabulary")


def bias(facts: AdapterFacts, reason: str) -> Finding:
    parts = any("lora_B.bias" in module.parts for module in facts.modules.values())
    if parts or facts.config.get("lora_bias") or facts.config.get("bias", "none") != "none":
        return error("bias", reason, _RETRAIN)
    return ok("bias", "none")


def rslora(facts: AdapterFacts, reason: str) -> Finding:
    if facts.config.get("use_rslora"):
        fix = f"fold it: adapterhub convert {facts.name} --canonical -o DIR"
        return error("rslora", reason, fix)
    return ok("rslora", "scaled by alpha/r")


def patterns(facts: AdapterFacts, reason: str) -> Finding:
    """Ranks or scalings that differ from the config's own r and lora_alpha."""
    rank, alpha = facts.config.get("r"), facts.config.get("lora_alpha")
    odd = [n for n, m in facts.modules.items() if (m.rank, m.alpha) != (rank, alpha)]
    if odd:
        fix = f"fold them: adapterhub convert {facts.name} --canonical -o DIR"
        return error("patterns", f"{few(odd)} differ from r and lora_alpha: {reason}", fix)
    return ok("patterns", f"every module has rank {rank} and alpha {alpha}")


def layout(facts: AdapterFacts, who: str) -> Finding:
    """Fused and split layers, where it is known what the base has."""
    family = FAMILIES.get(facts.family or "")
    if family is None:
        where = facts.family or "an unknown family"
        return warning(
            "layout",
            f"the base is of {where}, so that {few(leaves(facts))} were not compared with it",
            "name the base: --base NAME",
        )
    parts = {part for _, parts in family.fused for part in parts}
    split = leaves(facts) & parts
    strange = leaves(facts) - set(family.linear) - set(_OUTSIDE) - split
    if split or strange:
        form = "fused" if split else "split"
        return error(
            "layout",
            f"a {facts.family} base has no {few(split or strange)}, so that {who} refuses the "
            "adapter or leaves that part out",
            f"adapterhub convert {facts.name} --layout {form} -o DIR, if it was trained on the "
            "other layout of this base",
        )
    return ok("layout", f"all targets are layers of a {facts.family} block")


def outside(facts: AdapterFacts) -> set[str]:
    """Targets outside the blocks: embeddings and the head."""
    return leaves(facts) & set(_OUTSIDE)


def blocks_only(facts: AdapterFacts, reason: str) -> Finding:
    if outside(facts):
        return error("targets", f"{few(outside(facts))}: {reason}", "train without these targets")
    return ok("targets", f"{few(leaves(facts))}: linear layers of the blocks")


def dtype(facts: AdapterFacts, who: str) -> Finding:
    odd = set(facts.dtypes) - _FLOATS
    if odd:
        return error(
            "dtype",
            f"{who} is not known to read {few(odd)}",
            "store A and B as float32 or bfloat16",
        )
    return ok("dtype", f"stored as {few(facts.dtypes)}")


def uneven(facts: AdapterFacts) -> list[str]:
    """Kinds of layers that have weights in some blocks and not, or of another rank, in others."""
    kinds: dict[str, list[int]] = {}
    for module, low in facts.modules.items():
        kind = ".".join(part for part in module.split(".") if part.strip(_DIGITS))
        kinds.setdefault(kind, []).append(low.rank)
    most = max(map(len, kinds.values()), default=0)
    return sorted(
        kind for kind, found in kinds.items() if len(found) != most or len(set(found)) > 1
    )
