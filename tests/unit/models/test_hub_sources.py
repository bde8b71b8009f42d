"""Bases from a hub: the revision that was asked for, errors told apart, tokens kept at home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterhub.errors import (
    AdapterhubError,
    DeniedError,
    NotFoundError,
    UnknownRevisionError,
    UnreachableError,
)
from adapterhub.models.sources import open_source
from tests.hub_server import Fault, Hub, running_hub

pytestmark = pytest.mark.models


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that HF_ENDPOINT names, with one model; its owner is logged in at the public one."""
    monkeypatch.setenv("ADAPTERHUB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 30)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.put("acme/tiny", {"config.json": b"{}"})
        yield hub


def commit_of(source: str) -> str:
    with open_source(source, say=lambda _: None) as found:
        assert found.id == "acme/tiny"
        assert (found.path / "config.json").is_file()
        return found.revision


def failure_of(source: str) -> AdapterhubError:
    with pytest.raises(AdapterhubError) as caught, open_source(source, say=lambda _: None):
        pass
    return caught.value


def test_a_revision_is_the_one_that_was_asked_for(hub: Hub) -> None:
    [(first, _)] = hub.repos["acme/tiny"].commits
    newest = hub.put("acme/tiny", {"config.json": b'{"new": 1}'})
    assert commit_of(f"acme/tiny@{first}") == first
    assert commit_of("acme/tiny") == newest


def test_the_login_of_the_public_hub_is_shown_to_no_other(hub: Hub) -> None:
    commit_of("acme/tiny")
    assert hub.requests
    assert not any("authorization" in map(str.lower, r.headers) for r in hub.requests)


@pytest.mark.parametrize(
    ("source", "kind", "fact"),
    [
        ("acme/none", NotFoundError, "has no model acme/none"),
        ("acme/tiny@v9", UnknownRevisionError, "no such revision: acme/tiny@v9"),
        ("acme/gated", DeniedError, "acme/gated is gated"),
        ("acme/slow", UnreachableError, "acme/slow could not be downloaded: "),
    ],
)
def test_what_a_hub_refuses_is_told_apart(
    source: str, kind: type[AdapterhubError], fact: str, hub: Hub
) -> None:
    hub.put("acme/gated", {"config.json": b"{}"})
    hub.repos["acme/gated"].gated = True
    hub.faults.append(Fault(kind="status", path="acme/slow", value=418))
    error = failure_of(source)
    assert type(error) is kind
    assert fact in error.message
    assert "\n" not in error.message
    assert error.hint
