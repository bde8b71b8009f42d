"""bitsandbytes: NF4 (arXiv 2305.14314) and LLM.int8() (arXiv 2208.07339)."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import QuantBackend, hookimpl


@hookimpl
def adapterhub_backends() -> Sequence[QuantBackend]:
    return [
        QuantBackend(
            name="bnb",
            summary="NF4 and int8 through bitsandbytes, on CUDA and CPU",
            target="adapterhub_plugins.bnb.backend:BitsAndBytes",
            schemes=("nf4", "int8"),
        )
    ]
