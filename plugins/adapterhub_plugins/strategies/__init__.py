"""Ways to combine adapters: `linear` and `svd` on the deltas, neither mixing A with B, and
`sequential`, in which one adapter feeds the next."""

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
        Strategy(
            name="sequential",
            summary="each adapter changes what those before it made; attached only",
            target="adapterhub_plugins.strategies.combine:sequential",
            reference="the Stack of AdapterHub, arXiv 2005.00052",
            exact=True,
        ),
    ]
