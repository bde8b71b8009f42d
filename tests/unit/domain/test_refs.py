"""Names of adapters: what is one, what is not, and that writing and reading agree."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import UsageError

GOOD = {
    "user/en2ko-lora": Ref(namespace="user", name="en2ko-lora"),
    "user/en2ko-lora@v1": Ref(namespace="user", name="en2ko-lora", revision="v1"),
    "team:user/x": Ref(namespace="user", name="x", remote="team"),
    "my_team-2:a/b@3f9c1e2": Ref(namespace="a", name="b", remote="my_team-2", revision="3f9c1e2"),
    "a/b@refs/pr/1": Ref(namespace="a", name="b", revision="refs/pr/1"),
    "A.b_c-d/E.f_g-h": Ref(namespace="A.b_c-d", name="E.f_g-h"),
    f"{'n' * 96}/{'m' * 96}": Ref(namespace="n" * 96, name="m" * 96),
    "console/nullable": Ref(namespace="console", name="nullable"),
}
BAD = {
    "": "is not the name of an adapter",
    "lora": "is not the name of an adapter",
    "a/b/c": "is not the name of an adapter",
    "https://host/a/b": "is not the name of an adapter",
    "/etc/passwd": "is not the name of an adapter",
    "../x": "is not a valid name",
    "a/..": "is not a valid name",
    "a/": "is not a valid name",
    "/b": "is not a valid name",
    "a/b..c": "is not a valid name",
    "a/b--c": "is not a valid name",
    "a/.b": "is not a valid name",
    "a/b-": "is not a valid name",
    "a/b c": "is not a valid name",
    "a/b\n": "is not a valid name",
    "a/b\0": "is not a valid name",
    "a/한국어": "is not a valid name",
    "a/\uff42": "is not a valid name",
    f"a/{'b' * 97}": "is not a valid name",
    "a/con": "is a reserved name",
    "NUL.txt/b": "is a reserved name",
    "a/lpt9": "is a reserved name",
    "a/b.git": "is a reserved name",
    ":a/b": "is not the name of a remote",
    "Team:a/b": "is not the name of a remote",
    "a b:a/b": "is not the name of a remote",
    "x:y:a/b": "is not the name of a remote",
    "a/b@": "is not a revision",
    "a/b@..": "is not a revision",
    "a/b@v1@v2": "is not a revision",
    "a/b@x//y": "is not a revision",
    "a/b@-x": "is not a revision",
    "a/b@v1\n": "is not a revision",
}
# No reserved name, such as con or lpt7, begins with a digit.
part = st.from_regex(r"7[A-Za-z0-9]{0,8}([._-][A-Za-z0-9]{1,8}){0,3}7", fullmatch=True)
revision = st.from_regex(r"[A-Za-z0-9]{1,8}([._/-][A-Za-z0-9]{1,8}){0,3}", fullmatch=True)


@pytest.mark.parametrize(("text", "ref"), GOOD.items(), ids=GOOD)
def test_a_name_is_read_into_its_parts(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(("text", "said"), BAD.items(), ids=[repr(text) for text in BAD])
def test_what_is_no_name_is_refused_with_the_rule(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        parse_ref(text)
    assert raised.value.hint


@given(
    namespace=part,
    name=part,
    remote=st.none() | st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
    revision=st.none() | revision,
)
def test_a_ref_is_read_back_from_what_it_writes(
    namespace: str, name: str, remote: str | None, revision: str | None
) -> None:
    ref = Ref(namespace=namespace, name=name, remote=remote, revision=revision)
    assert parse_ref(str(ref)) == ref


@given(st.text(st.sampled_from("ab9./:@-_ ~\n한")))
def test_any_text_is_a_ref_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert str(parse_ref(text)) == text


def test_a_ref_is_moved_without_changing_the_first() -> None:
    ref = parse_ref("a/b")
    assert str(ref.on("team").at("v1")) == "team:a/b@v1"
    assert (str(ref), ref.id) == ("a/b", "a/b")
