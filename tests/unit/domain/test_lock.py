"""A lock answers what is wanted, or it is said by name what is not answered."""

from __future__ import annotations

import pytest

from adapterhub.domain.lock import (
    Lock,
    LockedAdapter,
    LockedFile,
    LockedRepository,
    Wanted,
    WantedAdapters,
    disagreement,
)
from adapterhub.domain.manifest import BaseRecord
from adapterhub.errors import UsageError


def locked(name: str, wanted: Wanted) -> LockedAdapter:
    return LockedAdapter(
        name=name,
        wanted=wanted,
        adapter=LockedRepository(
            ref=wanted.ref,
            remote="local",
            repo_uuid="u1",
            commit="c" * 40,
            method="lora",
            files=(LockedFile(path="adapter_config.json", size=2, sha256="a" * 64),),
        ),
        base=BaseRecord(id="acme/tiny"),
    )


def test_what_was_asked_is_a_ref_again() -> None:
    wanted = Wanted(ref="acme/a", revision="v1", remote="team")
    assert str(wanted.asked) == "team:acme/a@v1"
    assert str(locked("a", wanted).adapter.exact) == f"local:acme/a@{'c' * 40}"


def test_a_part_that_is_no_name_is_refused() -> None:
    with pytest.raises(UsageError):
        _ = Wanted(ref="../../etc").asked


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"a": Wanted(ref="acme/a")}, None),
        ({}, "a is in adapters.lock and not in adapters.toml"),
        ({"a": Wanted(ref="acme/a", revision="v2")}, "a was locked when"),
        ({"a": Wanted(ref="acme/a", base="tiny")}, "a was locked when"),
        (
            {"a": Wanted(ref="acme/a"), "b": Wanted(ref="acme/b")},
            "b is in adapters.toml and not in adapters.lock",
        ),
    ],
)
def test_a_disagreement_is_named(wanted: dict[str, Wanted], said: str | None) -> None:
    lock = Lock(adapters=(locked("a", Wanted(ref="acme/a")),))
    found = disagreement(WantedAdapters(adapters=wanted), lock)
    assert found is None if said is None else said in (found or "")
