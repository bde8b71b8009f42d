"""Write and read an adapter's card, the README.md that people and the Hugging Face Hub read.

Knows the manifest and the form of a card; measures nothing and promises nothing.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from adapterhub.domain.centroid import Centroid
from adapterhub.domain.lineage import origins
from adapterhub.domain.manifest import CONVERSIONS, BaseRecord, Manifest, Result
from adapterhub.domain.scales import scales_text
from adapterhub.errors import FormatError
from adapterhub.formats.escapes import escape

MAX_CARD = 1_000_000
_MAX_FRONT = 200_000
_MAX_DEPTH = 16
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PLAIN_PEFT = {"lora", "dora", "ia3", "loha", "lokr", "prompt_tuning", "prefix_tuning", "p_tuning"}
_PULL = re.compile(r"^\$ adapterhub pull (.+)$", re.MULTILINE)
_HINT = "correct the block between the two lines of '---'"


class _Loader(yaml.SafeLoader):
    """Texts, plain numbers, true, false and null: no date, no base 60, no merge of mappings."""


_Loader.yaml_implicit_resolvers = {}
for _kind, _form, _starts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,18})", list("-+0123456789")),
    ("float", r"[-+]?[0-9]{1,30}\.[0-9]{0,30}(?:[eE][-+][0-9]{1,3})?", list("-+0123456789")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_form})\Z"), _starts
    )


def render_card(manifest: Manifest, *, name: str) -> str:
    """README.md for the adapter `namespace/name`: YAML front matter, then a page for people."""
    front = yaml.safe_dump(_front(manifest, name), sort_keys=False, allow_unicode=True)
    parts = [_intro, _usage, _training, _results, _samples, _parents]
    body = "\n\n".join(filter(None, (part(manifest, name) for part in parts)))
    return f"---\n{front}---\n\n{body}\n"


def renamed_card(text: str, *, name: str) -> str:
    """The card with the commands of `_usage` and its title for another name, and every word that a
    person added as it was."""
    found = _PULL.search(text)
    if found is None:
        return text
    old = found.group(1)
    for mark in ("\n# {}\n", "$ adapterhub pull {}\n", '$ adapterhub run {} "'):
        text = text.replace(mark.format(old), mark.format(name))
    return text.replace(f"from_pretrained(base, {old!r})", f"from_pretrained(base, {name!r})")


def read_front_matter(text: str) -> dict[str, Any]:
    """The YAML between the first two lines of `---`; empty without one. Raises FormatError."""
    if len(text) > MAX_CARD:
        raise FormatError(
            f"the card has {len(text):,} characters, the limit is {MAX_CARD:,}",
            hint="shorten README.md",
        )
    found = re.match(r"\ufeff?---\r?\n(.*?)^---\s*$", text, re.DOTALL | re.MULTILINE)
    if found is None:
        return {}
    front = found.group(1)
    if len(front) > _MAX_FRONT:
        raise FormatError("the card's front matter is too long", hint=_HINT)
    try:
        _check_events(front)
        value = _Loader(front).get_single_data()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        fact = next(iter(str(error).splitlines()), "it cannot be read")
        raise FormatError(f"the card's front matter is not YAML: {fact}", hint=_HINT) from None
    if not isinstance(value, dict) and value is not None:
        raise FormatError("the card's front matter is not a list of fields", hint=_HINT)
    return value or {}


def _check_events(front: str) -> None:
    """Refuse depth, tags, and aliases, by which a kilobyte becomes a terabyte."""
    depth = 0
    for event in yaml.parse(front, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise FormatError("the card's front matter uses a YAML alias", hint=_HINT)
        if getattr(event, "tag", None) is not None:
            raise FormatError("the card's front matter uses a YAML tag", hint=_HINT)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise FormatError("the card's front matter is nested too deep", hint=_HINT)


def _front(manifest: Manifest, name: str) -> dict[str, Any]:
    plain = manifest.method in _PLAIN_PEFT
    front: dict[str, Any] = {"library_name": "peft" if plain else "adapterhub"}
    if HUB_ID.fullmatch(manifest.base.id):  # the Hub refuses a card that names a base it lacks
        front |= {"base_model": manifest.base.id, "base_model_relation": "adapter"}
    tags = ["adapterhub", manifest.method, manifest.trainer, manifest.strategy]
    front["tags"] = [tag for tag in dict.fromkeys(tags) if tag]
    front["pipeline_tag"] = "text-generation"
    if manifest.results:
        entries = [_model_index_entry(result) for result in manifest.results]
        front["model-index"] = [{"name": name.rpartition("/")[2], "results": entries}]
    return front


def _model_index_entry(result: Result) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {
            "name": result.task,
            "type": result.task,
            "args": {"n": result.n, "digest": result.task_digest},
        },
        "metrics": [{"type": result.metric, "value": result.score, "name": result.metric}],
    }


def _intro(manifest: Manifest, name: str) -> str:
    what = f"a `{manifest.method}` adapter for {base_text(manifest.base)}"
    foreign = "\n\nThis card was inferred from the adapter's files." * manifest.inferred
    return f"# {name}\n\nThis is {what}. It holds no base weights.{foreign}"


def base_text(base: BaseRecord) -> str:
    revision = f" at `{base.revision[:12]}`" if base.revision else ""
    scheme = f", trained on {base.scheme}" if base.scheme else ""
    return f"`{base.id}`{revision}{scheme}"


def _usage(manifest: Manifest, name: str) -> str:
    lines = [
        "## Use",
        f'```console\n$ adapterhub pull {name}\n$ adapterhub run {name} "..."\n```',
    ]
    if manifest.method in _PLAIN_PEFT:
        lines.append("Without adapterhub, by peft alone, which checks none of this:")
        lines.append(_snippet(manifest.base, name))
    return "\n\n".join(lines)


def _snippet(base: BaseRecord, name: str) -> str:
    revision = f", revision={base.revision!r}" if base.revision else ""
    return (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base.id!r}{revision})\n"
        f"model = PeftModel.from_pretrained(base, {name!r})\n```"
    )


def _training(manifest: Manifest, name: str) -> str:
    facts = [
        ("trainer", manifest.trainer),
        ("taught by", _teachers(manifest)),
        ("data (sha256)", manifest.data_sha256),
        *((key, value) for key, value in (manifest.recipe or {}).items()),
        ("checks switched off by its maker", ", ".join(manifest.allowed)),
        ("centroid", manifest.centroid and centroid_text(manifest.centroid)),
        ("written by", manifest.written_by),
        ("plugin of its method", _plugin(manifest)),
    ]
    shown = [(key, value) for key, value in facts if isinstance(value, (str, int, float)) and value]
    if not shown:
        return "## Training\n\nNot recorded."
    return "## Training\n\n" + table(("fact", "value"), shown)


def centroid_text(centroid: Centroid) -> str:
    prompts = f"{centroid.prompts} prompt{'s' * (centroid.prompts != 1)}"
    return f"of {prompts}, {centroid.dimension} numbers after block {centroid.layer}"


def _teachers(manifest: Manifest) -> str:
    """Those that were pinned; what a recipe merely names stands there by itself."""
    return ", ".join(
        f"{origin.weight:g} * {origin.ref} (sha256 {origin.sha256[:12]})"
        + (f", {scales_text(origin.scales)}" if origin.scales else "")
        for origin in origins(manifest)
        if origin.role == "teacher" and origin.sha256
    )


def _plugin(manifest: Manifest) -> str | None:
    plugin = manifest.plugin
    return f"{plugin.distribution} {plugin.version}" if plugin else None


def _results(manifest: Manifest, name: str) -> str:
    if not manifest.results:
        return "## Results\n\nNone recorded. `adapterhub eval` measures some."
    rows = [
        (r.task, r.metric, f"{r.score:.4g}", f"{r.base_score:.4g}", r.n) for r in manifest.results
    ]
    return "## Results\n\n" + table(("task", "metric", "adapter", "base", "items"), rows)


def _samples(manifest: Manifest, name: str) -> str:
    """Whatever a sample holds, a card shows it as one line of text."""
    if not manifest.golden:
        return ""
    rows = [
        (_literal(sample.messages[-1].content), _literal(sample.answer))
        for sample in manifest.golden
        if sample.messages
    ]
    heading = (
        "## Golden samples\n\nWhat it answered greedily when it was made, right or wrong, to rows "
        f"it was not trained on; `adapterhub verify {name} --base NAME` asks again.\n\n"
    )
    return heading + table(("asked", "answered"), rows)


def _literal(text: str) -> str:
    """As code, in which neither Markdown nor HTML means anything."""
    shown = escape(text)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}"


def _parents(manifest: Manifest, name: str) -> str:
    return parents_table(manifest)


def parents_table(manifest: Manifest) -> str:
    """Empty for an adapter that was made of no others."""
    if not manifest.parents:
        return ""
    scaled = any(parent.scales for parent in manifest.parents)
    rows = [
        (p.ref, f"{p.weight:g}", *([scales_text(p.scales or {})] if scaled else []), p.sha256[:12])
        for p in manifest.parents
    ]
    conversion = CONVERSIONS.get(manifest.strategy or "")
    how = f"Put together by `{manifest.strategy or 'an unknown strategy'}`."
    heading = f"## Parents\n\n{f'It was {conversion}.' if conversion else how}\n\n"
    head = ("adapter", "weight", *(["scaled"] if scaled else []), "sha256 of its weights")
    return heading + table(head, rows)


def table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")[:500]
