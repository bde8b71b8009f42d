"""Which linear layers each model family has inside its blocks, by leaf name.

Fused families say how a fused layer splits, which conversion and merging rely on.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapterhub.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """`attention` and `mlp` are leaf module names; `fused` maps one to its parts, in row order.

    `keys_values` are the layers, or parts of a fused one, that make keys and values;
    `feedforward` are those that read what the activation function made. `sublayers` are the leaf
    names of a block's attention and mlp modules.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    fused: tuple[tuple[str, tuple[str, ...]], ...] = ()
    keys_values: tuple[str, ...] = ("k_proj", "v_proj")
    feedforward: tuple[str, ...] = ("down_proj",)
    sublayers: tuple[str, str] = ("self_attn", "mlp")

    @property
    def linear(self) -> tuple[str, ...]:
        return (*self.attention, *self.mlp)


_SPLIT = Family(
    attention=("q_proj", "k_proj", "v_proj", "o_proj"), mlp=("gate_proj", "up_proj", "down_proj")
)
FAMILIES: dict[str, Family] = {
    "llama": _SPLIT,
    "mistral": _SPLIT,
    "qwen2": _SPLIT,
    "qwen3": _SPLIT,
    "gemma": _SPLIT,
    "gemma2": _SPLIT,
    "gemma3_text": _SPLIT,
    "phi3": Family(
        attention=("qkv_proj", "o_proj"),
        mlp=("gate_up_proj", "down_proj"),
        fused=(
            ("qkv_proj", ("q_proj", "k_proj", "v_proj")),
            ("gate_up_proj", ("gate_proj", "up_proj")),
        ),
    ),
    "gpt2": Family(
        attention=("c_attn", "c_proj"),
        mlp=("c_fc",),
        fused=(("c_attn", ("q", "k", "v")),),
        keys_values=("k", "v"),
        feedforward=("mlp.c_proj",),
        sublayers=("attn", "mlp"),
    ),
}


def family_targets(family: str, choice: str | tuple[str, ...] = "all-linear") -> tuple[str, ...]:
    """The leaf names for `all-linear`, `attention`, `mlp`, or the names themselves.

    Raises UsageError for a family without an entry, unless names are given.
    """
    if not isinstance(choice, str):
        return choice
    if family not in FAMILIES:
        raise UsageError(
            f"no default layers are known for the model family {family!r}",
            hint="name them: --targets q_proj,v_proj",
        )
    table = FAMILIES[family]
    groups = {"all-linear": table.linear, "attention": table.attention, "mlp": table.mlp}
    if choice in groups:
        return groups[choice]
    return tuple(name.strip() for name in choice.split(",") if name.strip())
