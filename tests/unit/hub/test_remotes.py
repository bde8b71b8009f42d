"""Named remotes and the tokens for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import close_session

from adapterhub.domain.refs import parse_ref
from adapterhub.errors import FormatError, NotFoundError, StorageError, UsageError
from adapterhub.hub.credentials import Token, forget_token, store_token, token_for
from adapterhub.hub.home import config_path, credentials_path, registry_dir
from adapterhub.hub.locate import locate
from adapterhub.hub.remotes import (
    Remote,
    add_remote,
    default_hub,
    normal_uri,
    remote,
    remotes,
    remove_remote,
)
from tests.hub_server import running_hub

SECRET = "hf_abcdefghijkl"


def test_two_are_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    assert list(remotes().values()) == [
        Remote(name="local", uri=registry_dir().as_uri()),
        Remote(name="hub", uri="https://huggingface.co"),
    ]


def test_one_that_was_added_is_known_until_it_is_removed() -> None:
    add_remote("team", "HTTPS://Hub.Example.org/")
    assert remote("team").uri == "https://hub.example.org"
    assert list(remotes()) == ["local", "hub", "team"]
    assert remove_remote("team").uri == "https://hub.example.org"
    assert list(remotes()) == ["local", "hub"]


def test_adding_the_same_again_is_fine_and_another_is_not() -> None:
    add_remote("team", "https://a.example")
    add_remote("team", "https://a.example/")
    with pytest.raises(UsageError, match=r"already is https://a\.example"):
        add_remote("team", "https://b.example")


@pytest.mark.parametrize("name", ["local", "hub", "Team", "1st", "a b", ""])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        add_remote(name, "https://a.example")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/tmp/x",
        "file://relative",
        "file://host/share",
        "a.example",
        "https://",
        "http://u:p@a.example",
        "http://[x",
        "x://y:99999",
    ],
)
def test_a_bad_address_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        normal_uri(uri)


def test_an_unknown_name_brings_the_nearest_one() -> None:
    with pytest.raises(NotFoundError) as caught:
        remote("locl")
    assert caught.value.hint == "did you mean 'local'?"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("remotes = 1", "`remotes` is not a table"),
        ("[remotes]\nteam = 1", r"remotes\.team is not a string"),
        ('[remotes]\nteam = "nowhere"', r"remotes\.team"),
        ('[remotes]\nHub2 = "https://a.example"', r"remotes\.Hub2"),
        ("[remote]\n", "unknown key 'remote'"),
        ("[remotes", "is not TOML"),
    ],
)
def test_a_bad_config_file_is_named_with_its_key(home: Path, text: str, says: str) -> None:
    home.mkdir()
    config_path().write_text(text)
    with pytest.raises(FormatError, match=says) as caught:
        remotes()
    assert str(config_path()) in caught.value.message


def test_a_token_is_for_its_endpoint_only() -> None:
    store_token("https://a.example/", SECRET)
    assert token_for("https://a.example") == Token(SECRET, str(credentials_path()))
    assert token_for("https://b.example") is None
    assert forget_token("https://a.example")
    assert not forget_token("https://a.example")
    assert token_for("https://a.example") is None


def test_hf_token_goes_to_the_public_hub_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert token_for("https://huggingface.co") == Token(SECRET, "HF_TOKEN")
    assert token_for(default_hub().uri) is None


def test_a_login_of_the_hf_command_does_not_reach_a_mirror(
    monkeypatch: pytest.MonkeyPatch, adapter: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with running_hub() as mirror:
        monkeypatch.setenv("HF_ENDPOINT", mirror.url)
        with pytest.raises(NotFoundError):
            locate(parse_ref("hub:user/en2ko-lora"))
        assert mirror.requests
        assert not [r for r in mirror.requests if "Authorization" in r.headers]
    close_session()


@pytest.mark.parametrize("name", ["my_team", "my-team"])
def test_no_two_remotes_share_a_variable(name: str) -> None:
    other = {"my_team": "my-team", "my-team": "my_team"}[name]
    add_remote(other, "https://a.example")
    with pytest.raises(UsageError, match=f"'{other}' would share the variable"):
        add_remote(name, "https://b.example")
    config_path().write_text('[remotes]\na-b = "https://a.example"\na_b = "https://b.example"\n')
    with pytest.raises(FormatError, match="ADAPTERHUB_TOKEN_A_B"):
        remotes()


@pytest.mark.parametrize("uri", ["http://a.example", "http://10.0.0.1:8080", "http://localhost.x"])
def test_a_token_is_never_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    with pytest.raises(UsageError, match="in the clear"):
        store_token(uri, SECRET)
    add_remote("team", uri)
    monkeypatch.setenv("ADAPTERHUB_TOKEN_TEAM", SECRET)
    with pytest.raises(UsageError, match="in the clear") as caught:
        token_for(uri)
    assert "https://" in (caught.value.hint or "")


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]", "localhost:1"])
def test_a_token_may_go_to_this_very_machine(host: str) -> None:
    store_token(f"http://{host}", SECRET)
    assert token_for(f"http://{host}") == Token(SECRET, str(credentials_path()))


def test_a_remote_has_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    add_remote("my-team", "https://a.example")
    store_token("https://a.example", "another-token")
    monkeypatch.setenv("ADAPTERHUB_TOKEN_MY_TEAM", SECRET)
    assert token_for("https://a.example") == Token(SECRET, "ADAPTERHUB_TOKEN_MY_TEAM")
    assert token_for(default_hub().uri) is None


def test_a_token_is_never_shown() -> None:
    token = Token(SECRET, "HF_TOKEN")
    assert SECRET not in f"{token!r} {token} {[token]}"


def test_the_file_of_tokens_is_for_its_owner() -> None:
    store_token("https://a.example", SECRET)
    assert credentials_path().stat().st_mode & 0o777 == 0o600
    credentials_path().chmod(0o644)
    with pytest.raises(StorageError, match="others can read") as caught:
        token_for("https://a.example")
    assert caught.value.hint == f"chmod 600 {credentials_path()}"


@pytest.mark.parametrize("secret", ["", "tiny", "has space in it", "line\nbreak-token"])
def test_what_cannot_be_a_token_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(UsageError) as caught:
        store_token("https://a.example", secret)
    assert not secret or secret not in caught.value.message


def test_a_broken_file_of_tokens_is_not_quoted(home: Path) -> None:
    home.mkdir()
    credentials_path().write_text(f'[tokens]\n"https://a" = "{SECRET}')
    credentials_path().chmod(0o600)
    with pytest.raises(FormatError) as caught:
        token_for("https://a.example")
    assert SECRET not in str(caught.value)
