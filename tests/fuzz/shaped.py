"""Values of every kind in the places of each format, for `test_fuzz`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import tomli_w
import yaml
from hypothesis import strategies as st

from adapterhub.domain.peft_keys import KEYS
from adapterhub.hub.sealed import SEAL, encode_plain
from tests.catalog_files import deb, mo, tarred, zipped
from tests.fuzz.targets import TARGETS

TEXT = st.text(max_size=30)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
NAMES = st.sampled_from(["adapter_config.json", "adapter_model.safetensors", "README.md"])
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
SHAPE = st.lists(st.integers(-1, 2**70), max_size=9)
ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "BF16", "F4", "", 3]), "shape": SHAPE, "data_offsets": SHAPE},
    optional={"more": LEAF},
)
# No surrogates: TOML and YAML files hold none, and their writers would raise instead of ours.
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TOML = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=4),
)
TASK = {"name": "t", "version": "1", "kind": "choice", "rows": "i.jsonl", "sha256": "0f" * 32}
HEAD = {"base": "tiny", "data": "rows.jsonl"}


def _config(kind: str) -> st.SearchStrategy[bytes]:
    keys = st.dictionaries(st.sampled_from(sorted(KEYS[kind])) | TEXT, JSON, max_size=8)
    return keys.map(lambda config: json.dumps(config | {"peft_type": kind}).encode())


def _framed(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


def _merged(target: str, change: dict[str, Any]) -> bytes:
    return json.dumps(json.loads(TARGETS[target].good[0]) | change).encode()


def _among(target: str) -> st.SearchStrategy[bytes]:
    """Any values under the keys that a good JSON object has."""
    keys = sorted(json.loads(TARGETS[target].good[0]).keys() - {SEAL})
    values = st.dictionaries(st.sampled_from(keys), JSON, max_size=3)
    unsealed = {SEAL: None} if SEAL in json.loads(TARGETS[target].good[0]) else {}
    return values.map(lambda change: _merged(target, unsealed | change))


def _toml(keys: list[str]) -> st.SearchStrategy[bytes]:
    tables = st.dictionaries(st.sampled_from(keys), TOML, max_size=3)
    return tables.map(lambda table: tomli_w.dumps(table).encode())


def _hub_info() -> st.SearchStrategy[bytes]:
    """Files of any sizes and digests."""
    file = st.fixed_dictionaries(
        {"rfilename": NAMES | JSON},
        optional={
            "size": JSON,
            "blobId": JSON,
            "lfs": JSON | st.fixed_dictionaries({"sha256": JSON, "size": JSON}),
        },
    )
    files = st.lists(file, max_size=4)
    return files.map(lambda siblings: _merged("hub-info", {"siblings": siblings}))


def _entries() -> st.SearchStrategy[list[dict[str, Any]]]:
    size = st.integers(-1, 2**63)
    digest = st.none() | TEXT | st.just("0f" * 32)
    entry = {"path": NAMES | TEXT, "size": size, "sha256": digest, "git_blob": digest}
    return st.lists(st.fixed_dictionaries(entry), max_size=4)


def _commit() -> st.SearchStrategy[bytes]:
    """In the one form that a commit's file may have."""

    def commit(entries: list[dict[str, Any]]) -> bytes:
        known = [{key: item for key, item in e.items() if item is not None} for e in entries]
        return encode_plain(json.loads(_merged("commit", {"files": known})))

    return _entries().map(commit)


def _record() -> st.SearchStrategy[bytes]:
    return _entries().map(lambda entries: _merged("record", {"entries": entries, SEAL: None}))


def _po() -> st.SearchStrategy[bytes]:
    """Keywords in any order, with any texts."""
    word = st.sampled_from(["msgid", "msgstr", "msgctxt", "msgid_plural", "msgstr[0]", "msgstr[1]"])
    line = st.builds(lambda key, text: f'{key} "{text}"', word | PLAIN, PLAIN)
    return st.lists(line | PLAIN | st.just("#, fuzzy"), max_size=9).map(
        lambda lines: "\n".join(lines).encode()
    )


def _packed(pack: Callable[[dict[str, bytes]], bytes]) -> st.SearchStrategy[bytes]:
    """Members of any names and bytes."""
    places = st.sampled_from(["a/ko/LC_MESSAGES/a.mo", "ko.po", "x.dist-info/METADATA", "PKG-INFO"])
    names = places | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
    return st.dictionaries(names, st.binary(max_size=40) | st.just(TARGETS["po"].good[0])).map(pack)


SHAPED: dict[str, st.SearchStrategy[bytes]] = {
    "config": st.sampled_from(sorted(KEYS)).flatmap(_config),
    "weights": (st.dictionaries(TEXT | st.just("__metadata__"), ENTRY | JSON, max_size=4)).map(
        _framed
    ),
    "manifest": st.dictionaries(
        st.sampled_from(["base", "recipe", "parents", "results", "schema_version", "method"]), JSON
    ).map(lambda change: _merged("manifest", change)),
    "base": st.dictionaries(
        st.sampled_from(["scheme", "fingerprint", "modality", "parameters", "note"]), JSON
    ).map(lambda change: _merged("base", change)),
    "composition": st.dictionaries(st.sampled_from(["base", "terms", "rank", "x"]), TOML).map(
        lambda table: tomli_w.dumps(table).encode()
    ),
    "recipe": st.dictionaries(st.sampled_from(["options", "steps", "eval_data", "x"]), TOML).map(
        lambda table: tomli_w.dumps({**HEAD, **table}).encode()
    ),
    "card": st.dictionaries(PLAIN, TOML).map(
        lambda front: f"---\n{yaml.safe_dump(front, allow_unicode=True)}---\n".encode()
    ),
    "rows": st.lists(JSON, max_size=4).map(
        lambda rows: b"\n".join(json.dumps(row).encode() for row in rows)
    ),
    "po": _po(),
    "mo": st.builds(
        lambda pairs, order, revision: mo(pairs, order=order, revision=revision),
        st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=4),
        st.sampled_from("<>"),
        st.integers(0, 2**32 - 1),
    ),
    "wheel": _packed(zipped),
    "tar": _packed(tarred),
    "deb": _packed(deb),
    "task": st.dictionaries(st.sampled_from(["stop", "metrics", "chat", "x"]), TOML).map(
        lambda table: tomli_w.dumps({**TASK, **table}).encode()
    ),
    "task rows": st.lists(
        st.fixed_dictionaries(
            {"prompt": TEXT}, optional={"choices": JSON, "answer": LEAF, "messages": JSON}
        ),
        max_size=4,
    ).map(lambda rows: b"\n".join(json.dumps(row).encode() for row in rows)),
    "ref": TEXT.map(lambda text: text.encode(errors="replace")),
    "expression": st.lists(TEXT | st.just("0.5*u/a"), max_size=4).map(
        lambda parts: "+".join(parts).encode(errors="replace")
    ),
    "paths": st.lists(TEXT, max_size=6).map(
        lambda names: "\n".join(names).encode("utf-8", "replace")
    ),
    "hub-info": _hub_info() | _among("hub-info"),
    "hub-list": st.lists(_among("hub-info").map(json.loads) | JSON, max_size=3).map(
        lambda listed: json.dumps(listed).encode()
    ),
    "index": _among("manifest") | _among("in-folder"),
    "commit": _commit() | _among("commit"),
    "identity": _among("identity"),
    "head": TEXT.map(lambda text: text.encode(errors="replace")),
    "tombstone": _among("tombstone"),
    "wanted": _toml(["adapters", "schema_version", "x"]),
    "lock": _toml(["adapters", "schema_version", "x"]),
    "record": _record() | _among("record"),
    "verdict": _among("verdict"),
    "remotes": st.dictionaries(PLAIN, PLAIN | TOML, max_size=3).map(
        lambda table: tomli_w.dumps({"remotes": table}).encode()
    ),
    "tokens": st.dictionaries(PLAIN, PLAIN | TOML, max_size=3).map(
        lambda table: tomli_w.dumps({"tokens": table}).encode()
    ),
    "in-folder": _among("in-folder"),
}
