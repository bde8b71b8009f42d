"""Bases on this machine: there whole or not at all, and found for the adapter made on them."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import FormatError, MismatchError, NotFoundError, UsageError
from adapterhub.formats.base_spec import encode_base
from adapterhub.models.bases import (
    SPEC_FILE,
    add_base,
    base_folder,
    base_for,
    broken_bases,
    find_base,
    list_bases,
    remove_base,
)
from adapterhub.models.quiet import quiet
from adapterhub.testing.tiny import write_tiny

pytestmark = pytest.mark.models

BF16 = scheme_by_name("bf16")
NF4 = scheme_by_name("nf4")
SPEC = BaseSpec(
    name="one",
    id="acme/tiny",
    source="/models/tiny",
    revision="abc",
    family="llama",
    modality="causal-lm",
    scheme=NF4,
    fingerprint=Fingerprint(layout="l", sketch="s", content="c"),
    parameters=1000,
    stored_bytes=600,
    context_length=128,
)


def keep(*specs: BaseSpec) -> None:
    """Bases without weights: finding one reads its spec alone."""
    for spec in specs:
        base_folder(spec.name).mkdir(parents=True)
        (base_folder(spec.name) / SPEC_FILE).write_bytes(encode_base(spec))


def print_of(content: str = "c", sketch: str = "s") -> Fingerprint:
    return Fingerprint(layout="l", sketch=sketch, content=content)


# --- adding -----------------------------------------------------------------------------------


def test_an_added_base_is_found_with_its_facts(own_home: Path, tmp_path: Path) -> None:
    source = write_tiny("llama", tmp_path / "source")
    added = add_base("mine", str(source), NF4)
    assert find_base("mine") == added
    assert (added.id, added.family, added.modality) == ("source", "llama", "causal-lm")
    assert added.revision == f"sha256:{added.fingerprint.content}"
    assert added.context_length == 512
    assert added.stored_bytes > 0


def test_a_name_is_taken_once(own_home: Path, tmp_path: Path) -> None:
    source = write_tiny("llama", tmp_path / "source")
    first = add_base("mine", str(source), BF16)
    with pytest.raises(UsageError, match="already here"):
        add_base("mine", str(source), NF4)
    assert find_base("mine") == first


def test_a_source_that_is_nothing_leaves_nothing(own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (write_tiny("llama", tmp_path / "bare") / "config.json").unlink()
    sources = (tmp_path / "empty", tmp_path / "bare", tmp_path / "missing.gguf", "not a source")
    for source in sources:
        with pytest.raises((NotFoundError, UsageError)):
            add_base("mine", str(source), BF16)
    assert list(own_home.rglob("*")) in ([], [own_home / "bases"])


def test_a_base_that_is_no_causal_model_is_refused(own_home: Path, tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=32)
    with quiet():
        T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(UsageError, match="t5"):
        add_base("mine", str(tmp_path / "t5"), BF16)
    assert list_bases() == []


def test_code_that_a_model_brings_is_never_run(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by one who answers yes to everything."""
    source, ran = write_tiny("llama", tmp_path / "evil"), tmp_path / "ran"
    (source / "configuration_evil.py").write_text(
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import LlamaConfig\n"
        "class EvilConfig(LlamaConfig):\n    model_type = 'evil'\n"
    )
    config = json.loads((source / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.EvilConfig"}}
    (source / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with pytest.raises(UsageError, match="own code, which is never run"):
        add_base("mine", str(source), BF16)
    assert not ran.exists()


def test_weights_that_were_cut_short_are_named(own_home: Path, tmp_path: Path) -> None:
    file = write_tiny("llama", tmp_path / "source") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"source/model\.safetensors is not a whole"):
        add_base("mine", str(file.parent), NF4)


def test_a_model_without_a_tokenizer_is_refused(own_home: Path, tmp_path: Path) -> None:
    source = write_tiny("llama", tmp_path / "source")
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(UsageError, match="has no tokenizer"):
        add_base("mine", str(source), NF4)
    assert list_bases() == []


_HALFWAY = """
import sys, time
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.models.bases import add_base

def linger(line):
    print(line, flush=True)
    time.sleep(60)

add_base("mine", sys.argv[1], scheme_by_name("bf16"), say=linger)
"""


def test_killed_halfway_it_leaves_nothing_listed(own_home: Path, tmp_path: Path) -> None:
    source = write_tiny("llama", tmp_path / "source")
    command = [sys.executable, "-c", _HALFWAY, str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"storing source as bf16\n"
        process.send_signal(signal.SIGKILL)
    assert list_bases() == []
    assert not base_folder("mine").exists()
    assert add_base("mine", str(source), BF16) == find_base("mine")


def test_what_was_never_given_its_name_is_not_listed(own_home: Path) -> None:
    """As a kill between the last file and the name leaves it."""
    keep(SPEC)
    base_folder("one").rename(base_folder(".adding-one"))
    assert list_bases() == []


def test_a_removed_base_is_gone(own_home: Path) -> None:
    keep(SPEC)
    remove_base("one")
    assert list_bases() == []


def test_a_broken_base_hides_no_other_and_can_be_removed(own_home: Path) -> None:
    keep(SPEC, replace(SPEC, name="two"))
    (base_folder("two") / SPEC_FILE).write_text("{")
    assert [spec.name for spec in list_bases()] == ["one"]
    assert list(broken_bases()) == ["two"]
    with pytest.raises(FormatError, match=r"the base 'two' is broken: .*base\.json"):
        find_base("two")
    remove_base("two")
    assert broken_bases() == {}
    assert not base_folder("two").exists()


# --- finding ----------------------------------------------------------------------------------


def test_a_slip_in_a_name_is_answered_with_the_name(own_home: Path) -> None:
    keep(replace(SPEC, name="phi3-mini"), replace(SPEC, name="smollm2"))
    with pytest.raises(NotFoundError) as caught:
        find_base("phi3-mnii")
    assert caught.value.hint == "did you mean phi3-mini?"


def test_without_bases_the_hint_is_to_add_one(own_home: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_base("phi3-mini")
    assert caught.value.hint == "add it: adapterhub base add phi3-mini SOURCE"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (BaseRecord(id="x", fingerprint=print_of("same", "s")), "same"),
        (BaseRecord(id="acme/tune", fingerprint=print_of("new", "tuned")), "probable"),
        (BaseRecord(id="acme/tiny", scheme=NF4), "other"),
        (BaseRecord(id="acme/tiny", scheme=BF16), "float"),
        (BaseRecord(id="x", scheme=BF16, fingerprint=print_of("same", "s")), "same"),
    ],
)
def test_the_base_of_an_adapter_is_the_same_bytes_then_the_probable_one_then_the_name(
    own_home: Path, record: BaseRecord, expected: str
) -> None:
    keep(
        replace(SPEC, name="float", scheme=BF16),
        replace(SPEC, name="other"),
        replace(SPEC, name="probable", id="acme/tune", fingerprint=print_of("p", "tuned")),
        replace(SPEC, name="same", id="acme/copy", fingerprint=print_of("same", "s")),
    )
    found = base_for(record)
    assert (found.name, found.scheme) == (expected, find_base(expected).scheme)


def test_of_equal_bases_the_scheme_it_was_trained_on_is_taken(own_home: Path) -> None:
    keep(replace(SPEC, name="a", scheme=BF16), replace(SPEC, name="b"))
    assert base_for(BaseRecord(id="x", fingerprint=print_of(), scheme=NF4)).name == "b"
    assert base_for(BaseRecord(id="x", fingerprint=print_of(), scheme=BF16)).name == "a"


def test_another_revision_of_the_same_name_is_refused(own_home: Path) -> None:
    keep(SPEC)
    with pytest.raises(
        MismatchError, match=r"made for acme/tiny, but .* same shape and other weights"
    ):
        base_for(BaseRecord(id="acme/tiny", fingerprint=print_of("other", "other")))


def test_a_tune_with_the_same_norms_is_not_taken_for_its_parent(own_home: Path) -> None:
    keep(replace(SPEC, name="tuned", id="acme/tuned", fingerprint=print_of("tuned", "s")))
    with pytest.raises(MismatchError, match="norms are equal, as a fine-tune's may be"):
        base_for(BaseRecord(id="acme/tiny", fingerprint=print_of("first", "s")))


def test_an_unknown_base_says_how_to_add_it(own_home: Path) -> None:
    keep(SPEC)
    with pytest.raises(NotFoundError) as caught:
        base_for(BaseRecord(id="acme/large"))
    assert "base add NAME acme/large" in (caught.value.hint or "")
