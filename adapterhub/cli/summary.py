"""What is known of an adapter, line by line, for one screen.

Reads manifests and the list of bases; opens no weights and asks no remote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import (
    CONVERSIONS,
    MERGED,
    BaseRecord,
    Manifest,
    Parent,
    Result,
)
from adapterhub.domain.match import BaseMatch, base_text, match_base
from adapterhub.domain.scales import scales_text
from adapterhub.errors import NotFoundError, PluginError
from adapterhub.formats.card import centroid_text
from adapterhub.hub.folder import COMPOSITION_METHOD, has_tensors
from adapterhub.plugin.catalog import catalog

_WORTH = ("same", "probable", "by name", "convertible", "same layout")
_WORDS = {
    "same": "the same base, byte for byte",
    "probable": "probably the same base: equal norms",
    "by name": "of the same name; nothing more is known of it",
    "convertible": "probably the same base with its layers laid out otherwise",
    "same layout": "of the same shape with other weights",
}

Judged = list[tuple[BaseSpec, BaseMatch]]


def bases_here(record: BaseRecord) -> Judged:
    """The bases on this machine that have something to do with the one an adapter was made for,
    those that fit first."""
    from adapterhub.models.bases import list_bases

    judged = [(base, match_base(record, base)) for base in list_bases()]
    near = [(base, found) for base, found in judged if found.verdict in _WORTH]
    return sorted(near, key=lambda item: (not item[1].fits, _WORTH.index(item[1].verdict)))


def summary(
    manifest: Manifest, facts: Mapping[str, Any], bases: Judged
) -> Iterator[tuple[str, str]]:
    """(label, text) of each line; what is not known is said to be unknown or left out."""
    record = manifest.base
    scheme = str(record.scheme) if record.scheme else "an unknown precision"
    yield "base", f"{base_text(record)} · {_made_on(manifest.method)} {scheme}"
    yield from (("have it?", line) for line in _have(record, bases))
    if facts.get("commit"):
        yield "revision", f"{facts['commit'][:12]} on {facts['remote']}"
    yield "made by", _maker(manifest)
    if manifest.trainer:
        yield "trained", _training(manifest)
    yield from (("parent", _parent(parent)) for parent in manifest.parents)
    yield from (("result", _result(result)) for result in manifest.results)
    yield "effect", _effect(manifest)
    if manifest.centroid:
        yield "centroid", f"{centroid_text(manifest.centroid)}; route compares prompts with it"
    if manifest.allowed:
        yield "allowed", f"its maker switched off: {', '.join(manifest.allowed)}"
    if manifest.method not in (COMPOSITION_METHOD, MERGED):
        yield "plugin", _plugin(manifest.method)
    if "installed" in facts:
        yield "here", facts["installed"] or "no"


def _made_on(method: str) -> str:
    if method == MERGED:
        return "merged into its weights as they are in"
    return "written for" if has_tensors(method) is False else "trained on"


def _have(record: BaseRecord, bases: Judged) -> Iterator[str]:
    if not any(found.fits for _, found in bases):
        yield f"no; adapterhub base add NAME {record.id}"
    for base, found in bases[:3]:
        answer = "yes, as" if found.fits else "not as"
        differences = "".join(f"; {difference}" for difference in found.differences)
        yield f"{answer} {base.name}: {_WORDS[found.verdict]}{differences if found.fits else ''}"


def _maker(manifest: Manifest) -> str:
    if manifest.inferred:
        return "unknown: there is no adapterhub.json, so this is read from its config"
    recipe = manifest.recipe or {}
    how = f"{manifest.trainer}, {recipe.get('steps_done', '?')} steps" if manifest.trainer else ""
    if has_tensors(manifest.method) is False:
        chosen = recipe.get("choose")
        how = f"design, {chosen} examples chosen from {recipe.get('data')}" if chosen else "design"
    if manifest.method == MERGED:
        how = f"merging ({manifest.strategy}), stored as {recipe.get('into', 'unknown')}"
    return f"{how or _derived(manifest.strategy)} · {manifest.written_by or 'unknown'}"


def _derived(strategy: str | None) -> str:
    """How it came from its parents, one that was converted or several that were put together."""
    if strategy is None:
        return "unknown means"
    return CONVERSIONS.get(strategy, f"stacking ({strategy})")


def _training(manifest: Manifest) -> str:
    """`iso-dates (data 3f9c1e2a4b5d) · 8 rows a step at 0.002`"""
    recipe = manifest.recipe or {}
    data = PurePath(str(recipe.get("data", "unknown data"))).name
    digest = f" (sha256 {manifest.data_sha256[:12]})" if manifest.data_sha256 else ""
    parts = [f"on {data}{digest}"]
    rate, batch = recipe.get("learning_rate"), recipe.get("batch_size")
    if batch is not None:
        parts.append(f"{batch} rows a step")
    if rate is not None:
        parts.append(f"rate {rate:g}" if isinstance(rate, (int, float)) else f"rate {rate}")
    if isinstance(recipe.get("eval_loss"), float):
        parts.append(f"loss on other rows {recipe['eval_loss']:.3f}")
    return " · ".join(parts)


def _parent(parent: Parent) -> str:
    scaled = f", {scales_text(parent.scales)}" if parent.scales else ""
    return f"{parent.weight:g} * {parent.ref}{scaled} ({parent.sha256[:12]})"


def _result(result: Result) -> str:
    figures = f"{result.score:g} (base {result.base_score:g}, {result.n} items)"
    return f"{result.task} {result.metric}: {figures}"


def _effect(manifest: Manifest) -> str:
    """As it was where it was made; whether it is the same elsewhere is for `verify`. A whole
    model has no base to be replayed on."""
    if manifest.method == MERGED:
        measured = (manifest.recipe or {}).get("measured")
        return "its card says what merging lost" if measured else "what merging lost is unmeasured"
    probe = manifest.probe
    if probe is None:
        return "not recorded; adapterhub verify --base NAME measures it"
    where = probe.environment.scheme
    return f"logits change by {probe.relative:.1%} on {where}; verify --base NAME replays it"


def _plugin(method: str) -> str:
    try:
        catalog().methods[method]
    except (NotFoundError, PluginError) as error:
        return f"none here: {error.message}"
    return str(catalog().methods.entries[method].owner)
