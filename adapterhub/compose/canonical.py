"""Write low-rank deltas in the plainest form there is: A and B of one rank, scaled by 1.

Folds alpha, rsLoRA and patterns into the factors, so that whatever ignores those keys serves the
same function. Reads patches, and so takes any method whose whole effect is a low-rank delta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from adapterhub.compose.converted_folder import write_converted
from adapterhub.compose.members import Member, open_patches, outline
from adapterhub.compose.peft_config import lora_config, tensor_names
from adapterhub.domain.manifest import BaseRecord
from adapterhub.errors import CapabilityError
from adapterhub.hub.staging import check_free, staged_folder

if TYPE_CHECKING:
    from torch import Tensor

Pairs = Mapping[str, "tuple[Tensor, Tensor]"]
CANONICAL = "canonical"


@dataclass(frozen=True, kw_only=True, slots=True)
class Canonical:
    """What was written: so many modules, each of this rank; `padded` of them had a smaller one."""

    folder: Path
    rank: int
    modules: int
    padded: int


def canonicalize(source: Member, out: Path, *, overwrite: bool = False) -> Canonical:
    """Raises CapabilityError for an adapter that is more than low-rank deltas, such as a DoRA."""
    check_free(out, overwrite=overwrite)
    found = outline(source)
    if not found.stackable or found.unmergeable:
        reason = found.unmergeable or f"{found.method} has no low-rank delta"
        raise CapabilityError(
            f"{source.ref}, a {found.method} adapter, has no canonical form: {reason}",
            hint="a DoRA's delta has full rank; `--rank R --base NAME` writes the nearest of rank R"
            if (source.folder.config or {}).get("use_dora")
            else "use it as it is",
        )
    pairs = {}
    with open_patches(source) as patches:
        for module in sorted(found.sites):
            patch = patches.take(module)
            pairs[module] = (patch.A, scaled(patch.B, patch.scaling))
    return write_canonical(source, pairs, out, base=found.base, overwrite=overwrite)


def scaled(B: Tensor, scaling: float) -> Tensor:
    """scaling * B: in its own dtype where that holds the product exactly, else in float32."""
    exact = B.double() * scaling
    own = exact.to(B.dtype)
    return own if torch.equal(own.double(), exact) else exact.float()


def write_canonical(
    source: Member,
    pairs: Pairs,
    out: Path,
    *,
    base: BaseRecord,
    allowed: tuple[str, ...] = (),
    overwrite: bool = False,
) -> Canonical:
    """`pairs` are A (rank, in) and B (out, rank) by module; smaller ranks are padded with zeros, so
    that no pattern is needed, and factors of several dtypes become float32."""
    dtypes = {tensor.dtype for pair in pairs.values() for tensor in pair}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    ranks = [len(A) for A, _ in pairs.values()]
    widest = max(ranks)
    state: dict[str, Tensor] = {}
    for module, (A, B) in pairs.items():
        missing = widest - len(A)
        wide = (
            torch.nn.functional.pad(A.to(dtype), (0, 0, 0, missing)),
            torch.nn.functional.pad(B.to(dtype), (0, missing)),
        )
        state |= zip(tensor_names(module), wide, strict=True)
    config = lora_config(
        dict.fromkeys(pairs, widest), base=base, configs=[source.folder.config or {}]
    )
    with staged_folder(out, overwrite=overwrite) as stage:
        write_converted(
            stage,
            source,
            method="lora",
            config=config,
            state=state,
            base=base,
            conversion=CANONICAL,
            name=out.absolute().name,
            allowed=allowed,
        )
    padded = sum(rank < widest for rank in ranks)
    return Canonical(folder=out, rank=widest, modules=len(pairs), padded=padded)
