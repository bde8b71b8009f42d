"""Ways to combine adapters: `linear` and `svd`, both on the deltas, neither mixing A with B."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Strategy, hookimpl


@hookimpl
def adapterhub_strategies() -> Sequence[Strategy]:
    return [
        Strategy(
            name="linear",
            summary="the exact weighted sum of the deltas, ranks added up",
            target="adapterhub_plugins.strategies.combine:linear",
            reference="task arithmetic, arXiv 2212.04089, on low-rank deltas",
            exact=True,
        ),
        Strategy(
            name="svd",
            summary="the best approximation of that sum at a given rank",
            target="adapterhub_plugins.strategies.combine:svd",
            reference="Eckart-Young, by QR of the stacked factors",
            exact=False,
        ),
    ]
