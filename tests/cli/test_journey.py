"""Push, search, show, pull, list, verify, rm: one adapter's way, and the JSON that scripts read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.adapter_files import f32, lora_tensors, write_lora
from tests.command_line import CommandLine


def test_an_adapter_goes_all_the_way(adapterhub: CommandLine, adapter: Path) -> None:
    pushed = adapterhub.ok("push", adapter, "acme/tiny-lora", "--json").json
    assert adapterhub.ok("search", "tiny", "--json").json[0]["commit"] == pushed["commit"]
    assert adapterhub.ok("show", "acme/tiny-lora", "--json").json["installed"] is None
    pulled = adapterhub.ok("pull", "acme/tiny-lora", "--json").json
    assert pulled["commit"] == pushed["commit"]
    [listed] = adapterhub.ok("list", "--json").json
    assert listed["folder"] == pulled["folder"]
    assert adapterhub.ok("verify", "acme/tiny-lora", "--json").json["ok"] is True
    adapterhub.ok("rm", "acme/tiny-lora", "--yes")
    assert adapterhub.ok("list", "--json").json == []
    assert not Path(pulled["folder"]).exists()


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("search", "--json"), "id remote commit method base updated tags"),
        (("list", "--json"), "ref id remote commit bytes pulled folder"),
        (("remote", "list", "--json"), "name uri"),
        (("plugins", "--json"), "plugin distribution version module offers problem disabled"),
    ],
    ids=str,
)
def test_lists_are_json_lists_of_like_objects(
    stocked: CommandLine, words: tuple[str, ...], keys: str
) -> None:
    found = stocked.ok(*words).json
    assert found
    assert all(set(item) == set(keys.split()) for item in found)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("push", "adapter", "acme/tiny-lora", "--json"), "ref commit uri"),
        (("push", "adapter", "acme/tiny-lora", "--dry-run", "--json"), "ref files skipped"),
        (
            ("pull", "acme/tiny-lora", "--json"),
            "ref remote commit folder downloaded_bytes from_cache ok problems facts",
        ),
        (("verify", "acme/tiny-lora", "--json"), "ok problems facts"),
        (("lint", "adapter", "--target", "vllm", "--json"), "target about ok findings"),
        (("show", "adapter", "--json"), "name folder bytes manifest config bases problems"),
        (
            ("show", "acme/tiny-lora", "--json"),
            "name ref remote commit repo_uuid parent created bytes files installed manifest config "
            "bases problems",
        ),
        (("doctor", "--json"), "ok checks"),
        (("methods", "--json"), "methods trainers backends strategies tasks destinations"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_everything_else_is_one_json_object(
    stocked: CommandLine, words: tuple[str, ...], keys: str
) -> None:
    assert set(stocked.ok(*words).json) == set(keys.split())


def test_a_second_pull_downloads_nothing(adapterhub: CommandLine, published: str) -> None:
    assert adapterhub.ok("pull", published, "--json").json["from_cache"] is False
    again = adapterhub.ok("pull", published, "--json").json
    assert (again["from_cache"], again["downloaded_bytes"]) == (True, 0)


def test_a_new_revision_is_pulled_and_the_old_one_still_has_its_name(
    adapterhub: CommandLine, published: str, adapter: Path
) -> None:
    old = adapterhub.ok("pull", published, "--json").json["commit"]
    write_lora(adapter, tensors={name: f32(t[1], 0.25) for name, t in lora_tensors().items()})
    adapterhub.ok("push", adapter, published)
    assert adapterhub.ok("pull", published, "--json").json["commit"] != old
    assert adapterhub.ok("pull", f"{published}@{old}", "--json").json["commit"] == old
    assert len(adapterhub.ok("list", "--json").json) == 2


# --- verify ---------------------------------------------------------------------------------


def test_what_verify_found_is_listed_with_its_code(adapterhub: CommandLine, tmp_path: Path) -> None:
    zero = {name: f32(tensor[1], 0.0) for name, tensor in lora_tensors().items()}
    write_lora(tmp_path / "idle", tensors=zero, lora_alpha=float(4))
    done = adapterhub("verify", "./idle", "--json")
    assert done.code == 12
    found = done.json
    assert found["ok"] is False
    assert [set(problem) for problem in found["problems"]] == [{"code", "message", "hint"}]
    assert found["problems"][0]["code"] == "no-effect"
    assert done.complaint[0] == "./idle has 1 problem"


def test_an_unchecked_effect_is_called_unchecked(adapterhub: CommandLine, adapter: Path) -> None:
    assert adapterhub.ok("verify", adapter, "--json").json["facts"]["effect"] == "unchecked"
    assert "unchecked" in adapterhub.ok("verify", adapter).out


def test_a_broken_adapter_is_not_published_unless_its_problem_is_named(
    adapterhub: CommandLine, tmp_path: Path
) -> None:
    zero = {name: f32(tensor[1], 0.0) for name, tensor in lora_tensors().items()}
    folder = write_lora(tmp_path / "idle", tensors=zero)
    refused = adapterhub("push", folder, "acme/idle")
    assert (refused.code, "it changes nothing" in refused.complaint[0]) == (12, True)
    assert adapterhub.ok("search", "--remote", "local", "--json").json == []
    adapterhub.ok("push", folder, "acme/idle", "--allow", "no-effect")
    pulled = adapterhub("pull", "acme/idle", "--json")
    assert (pulled.code, pulled.json["problems"][0]["code"]) == (12, "no-effect")
    assert adapterhub("pull", "acme/idle", "--allow", "no-effect").code == 0


# --- dry runs and removal -------------------------------------------------------------------


def test_a_dry_push_publishes_nothing(adapterhub: CommandLine, adapter: Path) -> None:
    done = adapterhub.ok("push", adapter, "acme/tiny-lora", "--dry-run")
    assert "would send adapter_model.safetensors (776 B)" in done.out
    assert adapterhub.ok("search", "--remote", "local", "--json").json == []


def test_a_dry_removal_removes_nothing(adapterhub: CommandLine, published: str) -> None:
    adapterhub.ok("pull", published)
    adapterhub.ok("rm", published, "--dry-run")
    there = adapterhub.ok("rm", published, "--remote", "--dry-run").out
    assert f"{published} with all its revisions from local (file://" in there
    assert len(adapterhub.ok("list", "--json").json) == 1
    assert len(adapterhub.ok("search", "--remote", "local", "--json").json) == 1


def test_a_no_removes_nothing(adapterhub: CommandLine, published: str) -> None:
    adapterhub.ok("pull", published)
    done = adapterhub.on_terminal("rm", published, typed="n\n")
    assert done.code == 1
    assert "error: nothing was removed\n" in done.out
    assert len(adapterhub.ok("list", "--json").json) == 1


def test_the_question_says_where_it_removes(adapterhub: CommandLine, published: str) -> None:
    done = adapterhub.on_terminal("rm", published, "--remote", typed="n\n", columns=400)
    assert f"Remove {published} with all its revisions from local (file://" in done.out
    assert adapterhub("rm", published, "--remote").code == 2
    assert len(adapterhub.ok("search", "--remote", "local", "--json").json) == 1


def test_a_yes_removes(adapterhub: CommandLine, published: str) -> None:
    adapterhub.ok("pull", published)
    assert adapterhub.on_terminal("rm", published, typed="y\n").code == 0
    assert adapterhub.ok("list", "--json").json == []


def test_unpublishing_takes_all_revisions_from_the_remote(
    adapterhub: CommandLine, published: str
) -> None:
    adapterhub.ok("rm", published, "--remote", "-y")
    assert adapterhub.ok("search", "--remote", "local", "--json").json == []


def test_a_remote_is_remembered_until_it_is_forgotten(
    adapterhub: CommandLine, adapter: Path, tmp_path: Path
) -> None:
    adapterhub.ok("remote", "add", "team", (tmp_path / "team").as_uri())
    adapterhub.ok("push", adapter, "acme/tiny-lora", "--to", "team")
    assert adapterhub.ok("pull", "team:acme/tiny-lora", "--json").json["remote"] == "team"
    adapterhub.ok("remote", "rm", "team")
    names = [item["name"] for item in adapterhub.ok("remote", "list", "--json").json]
    assert names == ["local", "hub"]
    assert len(adapterhub.ok("list", "--json").json) == 1


def test_a_token_may_come_through_a_pipe_and_is_never_shown(adapterhub: CommandLine) -> None:
    done = adapterhub("remote", "login", "hub", stdin="hf_secretsecret42\n")
    assert (done.code, done.err) == (0, "")
    kept = adapterhub.home / "credentials.toml"
    assert "hf_secretsecret42" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    assert "secret" not in json.dumps([done.out, adapterhub("pull", "hub:a/b").err])
    assert adapterhub.ok("remote", "logout", "hub").out == "forgot the token for hub\n"
    assert "hf_secretsecret42" not in kept.read_text()
    assert adapterhub.ok("remote", "logout", "hub").out == "no token is kept for hub\n"
