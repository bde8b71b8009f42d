"""Where virtual tokens start: at tokens that the base knows.

Sampled from its vocabulary or spelt by a text (arXiv 2104.08691, section 3.2), which trains faster
and more surely than noise. Knows a tokenizer and an embedding; no method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import UsageError
from adapterhub_plugins.virtual_tokens.config import INIT, TEXT

if TYPE_CHECKING:
    from torch import Tensor


def starting_embeddings(base: LoadedBase, config: Mapping[str, Any], *, seed: int) -> Tensor:
    """(tokens, hidden), by the config's start: a text, repeated or cut, or sampled tokens."""
    import torch

    tokens = config["num_virtual_tokens"]
    ids = _spelt(base, config[TEXT]) if config.get(INIT) == "TEXT" else _sampled(base, tokens, seed)
    wanted = torch.tensor([ids[i % len(ids)] for i in range(tokens)], device=base.device)
    with torch.no_grad():
        rows: Tensor = base.model.get_input_embeddings()(wanted)
    return rows.float()


def _spelt(base: LoadedBase, text: str) -> list[int]:
    ids: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UsageError(
            f"the base's tokenizer makes nothing of the text {text!r}", hint="use another text"
        )
    return ids


def _sampled(base: LoadedBase, tokens: int, seed: int) -> list[int]:
    """Ordinary tokens. Rows behind the tokenizer's last were never trained, nor were some special
    ones."""
    import torch

    special = set(base.tokenizer.all_special_ids)
    known = min(len(base.tokenizer), base.model.get_input_embeddings().weight.shape[0])
    ordinary = [token for token in range(known) if token not in special]
    make = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(ordinary), (tokens,), generator=make).tolist()
    return [ordinary[pick] for pick in picks]
