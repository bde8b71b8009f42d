"""Promises of the adapter_config.json reader."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from adapterhub.domain.peft_keys import KEYS
from adapterhub.errors import FormatError
from adapterhub.formats.adapter_config import decode_config, dropped_keys, encode_config
from tests.adapter_files import CONFIG
from tests.peft_releases import RELEASES, REMOVED, written


def decode(**changes: Any) -> dict[str, Any]:
    return decode_config(json.dumps(CONFIG | changes).encode())


def test_a_lora_config_is_read_as_written() -> None:
    assert decode() == CONFIG


def test_a_config_survives_its_file_and_sets_become_lists() -> None:
    data = encode_config(CONFIG | {"target_modules": {"v_proj", "q_proj"}})
    assert decode_config(data)["target_modules"] == ["q_proj", "v_proj"]
    assert data.endswith(b"}\n")


@pytest.mark.parametrize("empty", [None, False, "", [], {}])
def test_an_unknown_key_that_says_nothing_is_dropped(empty: Any) -> None:
    assert decode(from_the_future=empty) == CONFIG


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("from_the_future", True),
        ("r", 0),
        ("r", 10**9),
        ("r", 8.0),
        ("r", True),
        ("r", None),
        ("lora_alpha", 0),
        ("lora_alpha", -1),
        ("lora_alpha", 1e9),
        ("lora_alpha", "16"),
        ("lora_dropout", 1.5),
        ("lora_dropout", -0.1),
        ("bias", "some"),
        ("use_rslora", "yes"),
        ("target_modules", [1]),
        ("target_modules", "(a"),
        ("target_modules", "(a+)+b"),
        ("target_modules", ".*" * 9),
        ("target_modules", ".?" * 40 + "Z"),
        ("target_modules", ".{0,40}" * 8 + "Z"),
        ("target_modules", ".{,40}" * 8 + "Z"),
        ("target_modules", r"\\*" * 40 + "Z"),
        ("target_modules", "(a|a)" * 30 + "Z"),
        ("target_modules", "(?x)(a+) +b"),
        ("rank_pattern", {"(?i)q_proj": 1}),
        ("target_modules", ["x" * 600]),
        ("target_modules", ["x"] * 20_001),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", {"(.*)*": 1}),
        ("alpha_pattern", {"q_proj": "4"}),
        ("base_model_name_or_path", "a\0b"),
        ("base_model_name_or_path", 3),
        ("megatron_core", "os"),
        ("auto_mapping", {"parent_library": "os", "base_model_class": "system"}),
        ("auto_mapping", {"parent_library": "transformers_modules.x", "base_model_class": "A"}),
        ("auto_mapping", {"parent_library": "peft", "base_model_class": "a b"}),
        ("auto_map", {"AutoModel": "modeling.Evil"}),
        ("peft_type", "LORA\x1b"),
        ("loftq_config", []),
        ("layers_to_transform", [-1]),
    ],
)
def test_a_bad_value_is_refused_by_its_key(key: str, value: Any) -> None:
    start = time.perf_counter()
    with pytest.raises(FormatError) as caught:
        decode(**{key: value})
    assert time.perf_counter() - start < 0.5
    assert f"'{key}'" in caught.value.message
    assert "adapter_config.json" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "release"),
    [(kind, release) for kind in KEYS for release in RELEASES if written(kind, release)],
)
def test_what_an_old_peft_wrote_is_read_whole(kind: str, release: str) -> None:
    config = written(kind, release)
    data = json.dumps(config).encode()
    gone = REMOVED.keys() & config.keys()
    assert decode_config(data) == {key: config[key] for key in config if key not in gone}
    assert dropped_keys(data) == tuple(sorted(gone))


def test_what_is_dropped_can_be_told() -> None:
    data = json.dumps(
        CONFIG | {"b_later": None, "a_later": [], "runtime_config": {"x": 1}}
    ).encode()
    assert dropped_keys(data) == ("a_later", "b_later", "runtime_config")


@pytest.mark.parametrize(
    ("writer", "fact"),
    [
        ("0.21.2", "is unknown to peft 0.21 for LORA"),
        (None, "is unknown to peft 0.21 for LORA"),
        ("0.23.0.dev0", r"came with a peft after 0.21 \(peft 0.23.0.dev0 wrote it\)"),
        ("1.0", "came with a peft after 0.21"),
    ],
)
def test_a_key_from_a_later_peft_is_refused_by_the_release_that_wrote_it(
    writer: str | None, fact: str
) -> None:
    with pytest.raises(FormatError, match=fact):
        decode(use_newlora=True, peft_version=writer)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("LORA", "enable_lora", [True, False]),
        ("IA3", "use_dora", True),
        ("IA3", "feedforward_modules", "(a+)+b"),
        ("LN_TUNING", "target_modules", [1]),
        ("PROMPT_TUNING", "num_virtual_tokens", 10**9),
        ("PROMPT_TUNING", "prompt_tuning_init", "os.system"),
        ("PREFIX_TUNING", "encoder_hidden_size", -1),
        ("PREFIX_TUNING", "encoder_num_layers", 3),
        ("P_TUNING", "encoder_reparameterization_type", "GRU"),
        ("P_TUNING", "encoder_dropout", 7),
    ],
)
def test_each_method_is_held_to_its_own_keys(kind: str, key: str, value: Any) -> None:
    config = written(kind, "0.21") | {key: value}
    with pytest.raises(FormatError, match=f"'{key}'"):
        decode_config(json.dumps(config).encode())


def test_a_missing_rank_is_not_guessed() -> None:
    with pytest.raises(FormatError, match="'r' is missing"):
        decode_config(b'{"peft_type": "LORA", "lora_alpha": 1}')


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (
            "auto_mapping",
            {"parent_library": "transformers.models.phi3", "base_model_class": "Phi3"},
        ),
        ("target_modules", r"model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|up_proj)"),
        ("target_modules", "all-linear"),
        (
            "target_modules",
            r"(?:.*?(?:vision|image|language|text).*?(?:self_attn|attn|mlp|ffn|dense)"
            r".*?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)"
            r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|up_proj)))",
        ),
        ("base_model_name_or_path", "/etc"),  # a path is only ever a name here
        ("base_model_name_or_path", "tiny"),
        ("init_lora_weights", "pissa_niter_4"),
        ("layers_to_transform", 3),
        ("loftq_config", {"loftq_bits": 4}),
    ],
)
def test_what_peft_writes_is_welcome(key: str, value: Any) -> None:
    assert decode(**{key: value})[key] == value


def test_another_method_keeps_its_own_keys_within_limits() -> None:
    config = {"peft_type": "BOTTLENECK", "width": 8, "places": ["mlp"]}
    assert decode_config(json.dumps(config).encode()) == config
    with pytest.raises(FormatError, match="'places'"):
        decode_config(json.dumps(config | {"places": [0] * 20_001}).encode())
    assert decode_config(b'{"prompt": "Answer in French."}') == {"prompt": "Answer in French."}


@pytest.mark.parametrize(
    "data", [b"[]", b"{", b"[" * 10_000, b'{"r": NaN}', b'{"r": 1, "r": 2}', b" " * 50_000_000]
)
def test_a_hostile_file_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"adapter_config\.json"):
        decode_config(data)


@pytest.mark.models
def test_every_key_that_the_installed_peft_writes_is_known() -> None:
    from peft import LoraConfig

    written = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"]).to_dict()
    plain = {key: sorted(v) if isinstance(v, set) else v for key, v in written.items()}
    # Every key, also those that are null today, must be held to a rule and so be kept.
    kept = decode_config(encode_config(plain))
    assert set(kept) == set(written)
