"""Every reader of a stranger's bytes, with good bytes for it: the table the fuzzers work through.

A reader may refuse by an AdapterhubError and by nothing else. A new format is one line here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.composition import PinnedComposition, PinnedTerm, parse_composition
from adapterhub.domain.manifest import BaseRecord, Manifest, Parent, Result
from adapterhub.domain.quantization import Scheme
from adapterhub.domain.recipe import Recipe
from adapterhub.domain.refs import parse_ref
from adapterhub.formats.adapter_config import decode_config, encode_config
from adapterhub.formats.base_spec import decode_base, encode_base
from adapterhub.formats.card import read_front_matter, render_card
from adapterhub.formats.composition_file import decode_composition, encode_composition
from adapterhub.formats.manifest import decode_manifest, encode_manifest
from adapterhub.formats.mo_catalog import decode_mo
from adapterhub.formats.po_catalog import decode_po
from adapterhub.formats.recipe_file import decode_recipe, encode_recipe, published_recipe
from adapterhub.formats.rows import read_rows, row_to_messages
from adapterhub.formats.safetensors_header import find_nonfinite, find_zero, read_header
from adapterhub.formats.task_file import decode_task
from adapterhub.formats.task_rows import row_to_item
from adapterhub.hub.paths import check_paths
from adapterhub.translation.sources import find_package
from tests.adapter_files import CONFIG, lora_tensors, safetensors
from tests.catalog_files import HEADER, WORDS, deb, greeter, mo, po, tarred, zipped
from tests.fuzz.hub_targets import HUB_TARGETS
from tests.fuzz.target import Target
from tests.peft_releases import ADDED, written


def _weights(data: bytes) -> None:
    path = _file(data, "w.safetensors")
    header = read_header(path)
    find_nonfinite(path, header)
    find_zero(path, header)


def _config(data: bytes) -> None:
    config = decode_config(data)
    assert decode_config(encode_config(config)) == config


def _manifest(data: bytes) -> None:
    manifest = decode_manifest(data)
    assert decode_manifest(encode_manifest(manifest)) == manifest
    read_front_matter(render_card(manifest, name="me/mine"))


def _composition(data: bytes) -> None:
    decode_composition(data)


def _recipe(data: bytes) -> None:
    published_recipe(data)
    decode_recipe(data)


def _rows(data: bytes) -> None:
    for line, row in read_rows(_file(data, "rows.jsonl")):
        row_to_messages(row, line, "rows.jsonl")


def _package(ending: str) -> Callable[[bytes], Any]:
    return lambda data: find_package(str(_file(data, f"p{ending}")), "ko")


def _task_rows(data: bytes) -> None:
    for line, row in read_rows(_file(data, "rows.jsonl")):
        row_to_item(row, line, "rows.jsonl", kind="choice", chat="messages" in row)


def _file(data: bytes, name: str) -> Path:
    path = Path(_folder().name, name)
    path.write_bytes(data)
    return path


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _text(data: bytes) -> str:
    # As a shell hands arguments over: what is no UTF-8 arrives as lone surrogates.
    return data.decode("utf-8", "surrogateescape")


_SHA = "0f" * 32
_BASE = BaseRecord(
    id="acme/tiny",
    revision="a" * 40,
    family="llama",
    fingerprint=Fingerprint(layout=_SHA, sketch=_SHA, content=_SHA),
    scheme=Scheme(name="nf4", block_size=64, double_quant=True),
)
_MANIFEST = Manifest(
    method="lora",
    config_version=1,
    base=_BASE,
    trainer="sft",
    recipe={"steps": 3, "options": {"r": 2}},
    data_sha256=_SHA,
    parents=(Parent(ref="u/a", weight=0.5, sha256=_SHA),),
    strategy="svd",
    results=(Result(task="t", metric="m", score=0.5, base_score=0.1, n=9, task_digest=_SHA),),
    allowed=("wrong-base",),
    written_by="adapterhub 1",
)
_PINNED = PinnedComposition(
    base=_BASE,
    terms=(
        PinnedTerm(ref="u/a", weight=0.5, sha256=_SHA, commit="b" * 40),
        PinnedTerm(ref="u/b", weight=1.0, sha256=_SHA, scales={"layers.0-3": 0.5, "mlp": 0.0}),
    ),
)
_SPEC = BaseSpec(
    name="tiny",
    id="acme/tiny",
    source="acme/tiny",
    revision="a" * 40,
    family="llama",
    modality="causal-lm",
    scheme=Scheme(name="nf4", block_size=64, double_quant=True),
    fingerprint=Fingerprint(layout="l", sketch="s", content="c"),
    parameters=10,
    stored_bytes=5,
    context_length=64,
)
_RECIPE = Recipe(base="tiny", data="rows.jsonl", options={"rank": 4, "rank_pattern": {"q_proj": 2}})
_ROWS = (
    b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    b'{"prompt": "a", "completion": "b", "system": "c"}\n'
)
_PLURAL = 'msgctxt "m"\nmsgid "a"\nmsgid_plural "%d"\nmsgstr[0] "\\t\\x41"\n#~ msgid "o"\n'
_MO = (
    (b"", b"Content-Type: text/plain; charset=EUC-KR\n"),
    (b"m\x04a\0%d", "한".encode("euc-kr")),
)
_KOREAN = {"./usr/share/locale/ko/LC_MESSAGES/g.po": po(WORDS), "./usr/share/doc/g/copyright": b""}
_CHOICES = (
    b'{"messages": [{"role": "user", "content": "a"}], "choices": ["b", "c"], "answer": 1}\n'
    b'{"prompt": "a", "choices": ["b", "c"], "answer": "c"}\n'
)
_TASK = (
    b'name = "t"\nversion = "1"\nkind = "choice"\nrows = "i.jsonl"\nmetrics = ["acc"]\n'
    b'sha256 = "' + _SHA.encode() + b'"\nstop = ["\\n"]\npattern = "a"\nchat = false\n'
)

TARGETS: dict[str, Target] = {
    "weights": Target((safetensors(lora_tensors(), {"format": "pt"}),), _weights),
    "config": Target(
        (
            json.dumps(CONFIG).encode(),
            *(json.dumps(written(kind, "0.21")).encode() for kind in ADDED),
            b'{"method": "bottleneck", "width": 8, "places": ["mlp"]}',
        ),
        _config,
    ),
    "manifest": Target((encode_manifest(_MANIFEST),), _manifest),
    "base": Target((encode_base(_SPEC),), lambda data: decode_base(data, name="base.json")),
    "composition": Target((encode_composition(_PINNED),), _composition),
    "recipe": Target((encode_recipe(_RECIPE),), _recipe),
    "card": Target(
        (render_card(_MANIFEST, name="me/mine").encode(), b"---\na: [1, {b: 2}]\n---\ntext"),
        lambda data: read_front_matter(data.decode(errors="replace")),
    ),
    "rows": Target((_ROWS,), _rows),
    "po": Target(
        (po(WORDS), f"{HEADER}#, fuzzy\n{_PLURAL}".encode()),
        lambda data: decode_po(data, name="ko.po"),
    ),
    "mo": Target(
        (mo(_MO), mo(_MO, order=">", revision=1, dependent=1)),
        lambda data: decode_mo(data, name="ko.mo"),
    ),
    "wheel": Target((zipped(greeter()),), _package(".whl")),
    "tar": Target((tarred(_KOREAN), tarred(_KOREAN, packing="")), _package(".tar")),
    "deb": Target((deb(_KOREAN), deb(_KOREAN, packing="gz")), _package(".deb")),
    "task": Target((_TASK,), decode_task),
    "task rows": Target((_CHOICES,), _task_rows),
    "ref": Target((b"team:user/en2ko-lora@refs/pr/1",), lambda data: parse_ref(_text(data))),
    "expression": Target((b"u/a+0.5*u/b@v1",), lambda data: parse_composition(_text(data))),
    "paths": Target(
        (b"adapter_config.json\nadapter_model.safetensors\nmore/README.md",),
        lambda data: check_paths(_text(data).split("\n"), name="me/mine"),
    ),
    **HUB_TARGETS,
}
