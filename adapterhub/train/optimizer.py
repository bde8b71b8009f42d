"""The optimizer that a recipe asks for, and its state as plain tensors.

Knows names of parameters and rates; gradients and checkpoints are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapterhub.domain.recipe import Optimizer, Recipe
from adapterhub.errors import UsageError

# LoRA's B factors, by the names they are stored under.
_B_FACTORS = (".lora_B.weight", ".lora_embedding_B")


def make_optimizer(
    recipe: Recipe, parameters: Mapping[str, Any], *, device: str, say: Callable[[str], None]
) -> tuple[Any, Optimizer]:
    """The optimizer and the name of what it really is: 8 bits are kept on CUDA only.

    Raises UsageError for a ratio between two rates where there is nothing to have the second one.
    """
    import torch

    groups = _groups(recipe, parameters)
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, **settings), "adamw"
    if not device.startswith("cuda"):
        say(f"{recipe.optimizer} needs CUDA; torch's AdamW is used instead")
        return torch.optim.AdamW(groups, **settings), "adamw"
    import bitsandbytes as bnb

    kinds = {"adamw8bit": bnb.optim.AdamW8bit, "paged_adamw8bit": bnb.optim.PagedAdamW8bit}
    return kinds[recipe.optimizer](groups, **settings), recipe.optimizer


def set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("ratio", 1.0)


def _groups(recipe: Recipe, parameters: Mapping[str, Any]) -> Any:
    """B factors apart from the rest where their rate differs (LoRA+, arXiv 2402.12354)."""
    if recipe.lr_ratio == 1.0:
        return list(parameters.values())
    fast = [tensor for name, tensor in parameters.items() if name.endswith(_B_FACTORS)]
    if not fast:
        raise UsageError(
            f"--lr-ratio {recipe.lr_ratio:g} would change nothing: what {recipe.method} trains "
            "here has no B factors",
            hint="leave it out, or use --method lora",
        )
    rest = [tensor for name, tensor in parameters.items() if not name.endswith(_B_FACTORS)]
    groups = ({"params": rest}, {"params": fast, "ratio": recipe.lr_ratio})
    return [group for group in groups if group["params"]]


def state_tensors(optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tensors, plain values) of an optimizer's state, by the path to each."""
    import torch

    tensors: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for path, value in _leaves(optimizer.state_dict()["state"], ""):
        (tensors if isinstance(value, torch.Tensor) else plain)[path] = value
    return tensors, plain


def load_state(optimizer: Any, tensors: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Put back what `state_tensors` gave, as copies."""
    copies = {path: tensor.clone() for path, tensor in tensors.items()}
    state: dict[Any, Any] = {}
    for path, value in (*copies.items(), *plain.items()):
        number, *keys = path.split("/")
        entry = state.setdefault(int(number), {})
        for key in keys[:-1]:
            entry = entry.setdefault(key, {})
        entry[keys[-1]] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _leaves(value: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(path, value)]
    return [
        leaf
        for key, item in value.items()
        for leaf in _leaves(item, f"{path}/{key}" if path else str(key))
    ]
