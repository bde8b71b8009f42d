"""Ways to combine adapters, all on the deltas and none mixing one adapter's A with another's B;
`sequential`, in which one adapter feeds the next; `switch` and `route`, in which one answers."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Strategy, hookimpl

_KEEP = {"keep": "instead of a rank: the share of the squared norm to keep, such as 0.99"}
_DENSITY = "the share of entries that each adapter keeps; default "
_SEED = {"seed": "decides what chance decides; default 0"}


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
            reference="Eckart-Young, through the stacked factors",
            exact=False,
            options=_KEEP,
        ),
        Strategy(
            name="sequential",
            summary="each adapter changes what those before it made; attached only",
            target="adapterhub_plugins.strategies.combine:sequential",
            reference="the Stack of AdapterHub, arXiv 2005.00052",
            exact=True,
        ),
        Strategy(
            name="switch",
            summary="each request names the one adapter that answers it; attached only",
            target="adapterhub_plugins.strategies.combine:switch",
            reference="an adapter a request, as S-LoRA serves them, arXiv 2311.03285",
            exact=True,
        ),
        Strategy(
            name="route",
            summary="each prompt is answered by the adapter trained on the like; attached only",
            target="adapterhub_plugins.strategies.combine:route",
            reference="LoraRetriever, arXiv 2402.09997, by the base's own states",
            exact=True,
        ),
        Strategy(
            name="ties",
            summary="trim, elect signs, mean of what agrees",
            target="adapterhub_plugins.strategies.sparse:ties",
            reference="arXiv 2306.01708",
            exact=False,
            options={"density": f"{_DENSITY}0.2", **_KEEP},
        ),
        Strategy(
            name="dare_linear",
            summary="drop entries by chance, scale the others up, add",
            target="adapterhub_plugins.strategies.sparse:dare_linear",
            reference="arXiv 2311.03099",
            exact=False,
            options={"density": f"{_DENSITY}0.5", **_SEED, **_KEEP},
        ),
        Strategy(
            name="dare_ties",
            summary="as dare_linear, with the signs of ties",
            target="adapterhub_plugins.strategies.sparse:dare_ties",
            reference="arXiv 2311.03099",
            exact=False,
            options={"density": f"{_DENSITY}0.5", **_SEED, **_KEEP},
        ),
        Strategy(
            name="magnitude_prune",
            summary="the sum of each delta's largest entries",
            target="adapterhub_plugins.strategies.sparse:magnitude_prune",
            reference="arXiv 2306.01708, without its signs",
            exact=False,
            options={"density": f"{_DENSITY}0.2", **_KEEP},
        ),
        Strategy(
            name="della",
            summary="as dare_ties, larger entries dropped less often",
            target="adapterhub_plugins.strategies.sparse:della",
            reference="arXiv 2406.11617",
            exact=False,
            options={
                "density": f"{_DENSITY}0.5",
                "spread": "between the chances of a row's smallest and largest; default 0.2",
                **_SEED,
                **_KEEP,
            },
        ),
        Strategy(
            name="breadcrumbs",
            summary="the sum without each delta's outliers and small entries",
            target="adapterhub_plugins.strategies.sparse:breadcrumbs",
            reference="arXiv 2312.06795",
            exact=False,
            options={
                "density": f"{_DENSITY}0.9",
                "outliers": "the share of largest entries left out; default 0.01",
                **_KEEP,
            },
        ),
        Strategy(
            name="slerp",
            summary="from one adapter to another along an arc",
            target="adapterhub_plugins.strategies.combine:slerp",
            reference="Shoemake, 1985",
            exact=False,
            full_rank=True,
        ),
        Strategy(
            name="knots",
            summary="ties in the directions that all adapters share",
            target="adapterhub_plugins.strategies.aligned:knots",
            reference="arXiv 2410.19735",
            exact=False,
            full_rank=True,
            options={"density": f"{_DENSITY}0.2", **_KEEP},
        ),
        Strategy(
            name="core_space",
            summary="ties on the small cores between shared spans",
            target="adapterhub_plugins.strategies.aligned:core_space",
            reference="arXiv 2509.17786",
            exact=False,
            full_rank=True,
            options={"density": f"{_DENSITY}0.2", **_KEEP},
        ),
    ]
