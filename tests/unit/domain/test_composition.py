"""`A+0.5*B`: what it means, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterhub.domain.composition import (
    Composition,
    PinnedComposition,
    PinnedTerm,
    Term,
    parse_composition,
)
from adapterhub.domain.manifest import BaseRecord
from adapterhub.errors import UsageError

READ = {
    "a/b": [("a/b", 1.0)],
    "a/b+c/d": [("a/b", 1.0), ("c/d", 1.0)],
    "a/b+0.5*c/d": [("a/b", 1.0), ("c/d", 0.5)],
    "a/b*0.8+c/d": [("a/b", 0.8), ("c/d", 1.0)],
    " a/b * .8 + 2 * c/d ": [("a/b", 0.8), ("c/d", 2.0)],
    "-1*a/b": [("a/b", -1.0)],
    "a/b*-0.5+c/d": [("a/b", -0.5), ("c/d", 1.0)],
    "1e-3*a/b": [("a/b", 0.001)],
    "./one*2+./two": [("./one", 2.0), ("./two", 1.0)],
    "team:a/b@v1*2": [("team:a/b@v1", 2.0)],
    "1000*a/b": [("a/b", 1000.0)],
}
REFUSED = {
    "": "is not a composition",
    "+": "is not a composition",
    "a/b+": "is not a composition",
    "+a/b": "is not a composition",
    "a/b++c/d": "is not a composition",
    "*a/b": "is not a composition",
    "a/b*": "is not a composition",
    "a/b*c/d": "no weight in",
    "x*a/b": "no weight in",
    "1_000*a/b": "no weight in",
    "nan*a/b": "no weight in",
    "inf*a/b": "no weight in",
    "٣*a/b": "no weight in",
    "0*a/b": "is of no use",
    "-0.0*a/b": "is of no use",
    "1001*a/b": "is of no use",
    "1e999*a/b": "is of no use",
    "a/b+a/b": "appears twice",
    "a/b+2*a/b": "appears twice",
}
weights = st.floats(min_value=-999, max_value=999).filter(lambda weight: abs(weight) > 1e-3)


@pytest.mark.parametrize(("text", "terms"), READ.items(), ids=READ)
def test_a_composition_is_read_into_adapters_and_weights(
    text: str, terms: list[tuple[str, float]]
) -> None:
    read = parse_composition(text)
    assert [(term.ref, term.weight) for term in read.terms] == terms
    assert (read.strategy, read.rank) == ("linear", None)


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=[repr(text) for text in REFUSED])
def test_what_is_no_composition_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        parse_composition(text)
    assert raised.value.hint


@given(st.lists(weights, min_size=1, max_size=5))
def test_what_is_written_is_read_back_to_six_digits(values: list[float]) -> None:
    terms = tuple(Term(ref=f"a/b{n}", weight=weight) for n, weight in enumerate(values))
    read = parse_composition(str(Composition(terms=terms)))
    assert [term.weight for term in read.terms] == pytest.approx(values, rel=1e-5)


def test_only_one_adapter_at_its_own_strength_is_single() -> None:
    assert parse_composition("a/b").single
    assert not parse_composition("2*a/b").single
    assert not parse_composition("a/b+c/d").single


def test_a_pinned_composition_names_the_same_adapters() -> None:
    pinned = PinnedComposition(
        base=BaseRecord(id="acme/tiny"),
        terms=(PinnedTerm(ref="a/b", weight=0.5, sha256="0" * 64, commit="1" * 40),),
        strategy="svd",
        rank=4,
    )
    expected = Composition(terms=(Term(ref="a/b", weight=0.5),), strategy="svd", rank=4)
    assert pinned.composition == expected
