"""add, lock, sync and diff, as a person and a script see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.adapter_files import write_lora
from tests.base_records import write_base_record
from tests.command_line import CommandLine


@pytest.fixture
def project(adapterhub: CommandLine, published: str) -> CommandLine:
    """A project that wants one adapter and has it locked."""
    adapterhub.ok("add", published)
    return adapterhub


def file(run: CommandLine, name: str) -> Path:
    assert run.cwd is not None
    return run.cwd / name


def test_add_writes_both_files_and_sync_brings_the_bytes(
    project: CommandLine, adapter: Path
) -> None:
    project.ok("rm", "-y", "acme/tiny-lora")
    done = project.ok("sync", "--frozen", "--into", "adapters")
    assert "as locked" in done.out
    got = file(project, "adapters") / "tiny-lora"
    assert {p.name: p.read_bytes() for p in got.iterdir()} == {
        p.name: p.read_bytes() for p in adapter.iterdir()
    }


def test_a_lock_that_is_not_up_to_date_is_refused_frozen_and_completed_otherwise(
    project: CommandLine,
) -> None:
    lock = file(project, "adapters.lock")
    before = lock.read_bytes()
    wanted = file(project, "adapters.toml")
    wanted.write_text(wanted.read_text() + '\n[adapters.again]\nref = "acme/tiny-lora"\n')
    for words in (("sync", "--frozen"), ("sync", "--offline")):
        done = project(*words)
        assert done.code == 5
        assert done.complaint[0] == "again is in adapters.toml and not in adapters.lock"
        assert len(done.complaint) == 2
        assert lock.read_bytes() == before
    assert project.ok("sync", "--json").json["lock_changed"]
    assert project.ok("sync", "--frozen", "--json").json["lock_changed"] is False


def test_lock_takes_the_newest_and_sync_does_not(project: CommandLine, adapter: Path) -> None:
    lock = file(project, "adapters.lock")
    before = lock.read_bytes()
    project.ok("push", write_lora(adapter, lora_alpha=8), "acme/tiny-lora")
    project.ok("sync")
    assert lock.read_bytes() == before
    assert project.ok("lock", "--dry-run").out.count("became") == 1
    assert lock.read_bytes() == before
    done = project.ok("lock")
    assert "next: adapterhub diff local:acme/tiny-lora@" in done.err
    assert lock.read_bytes() != before
    changed = project.ok(*done.err.rpartition("adapterhub ")[2].split(), "--json").json
    assert changed["config"] == [{"key": "lora_alpha", "one": "4", "other": "8"}]


def test_locking_twice_gives_the_same_bytes(project: CommandLine) -> None:
    lock = file(project, "adapters.lock")
    before = lock.read_bytes()
    project.ok("lock")
    assert lock.read_bytes() == before


def test_a_slip_in_a_name_lands_in_no_file(adapterhub: CommandLine, published: str) -> None:
    done = adapterhub("add", "local:acme/tiny-lorra")
    assert done.code == 3
    assert done.complaint[1] == "did you mean acme/tiny-lora?"
    assert not file(adapterhub, "adapters.toml").exists()


def test_a_repository_that_was_made_anew_needs_a_word(project: CommandLine, adapter: Path) -> None:
    project.ok("rm", "--remote", "-y", "acme/tiny-lora")
    project.ok("push", adapter, "acme/tiny-lora")
    done = project("lock")
    assert done.code == 4
    assert done.complaint[1].endswith("adapterhub lock --accept tiny-lora")
    project.ok("rm", "-y", "acme/tiny-lora")
    refused = project("sync", "--frozen")
    assert refused.code == 3
    assert "tiny-lora: local:acme/tiny-lora no longer has the commit" in refused.complaint[0]
    project.ok("lock", "--accept", "tiny-lora")
    project.ok("sync", "--frozen")


def test_a_base_that_was_replaced_is_refused(adapterhub: CommandLine, published: str) -> None:
    write_base_record(adapterhub.home, "tiny")
    adapterhub.ok("add", published, "--base", "tiny")
    adapterhub.ok("sync", "--frozen", "--offline")
    spec = adapterhub.home / "bases" / "tiny" / "base.json"
    stored = json.loads(spec.read_text())
    stored["fingerprint"]["content"] = "9" * 64
    spec.write_text(json.dumps(stored))
    done = adapterhub("sync", "--frozen", "--offline")
    assert done.code == 5
    assert "the base tiny is not the one that was locked: its weights changed" in done.complaint[0]
    spec.write_text("{")
    assert adapterhub("sync", "--frozen").code == 4


@pytest.mark.parametrize("words", ["lock", "sync", "sync --frozen --offline"])
def test_without_a_project_there_is_one_next_move(adapterhub: CommandLine, words: str) -> None:
    done = adapterhub(*words.split())
    assert (done.code, done.complaint) == (
        3, ["there is no adapters.toml here", "adapterhub add USER/NAME"],
    )  # fmt: skip


def test_a_broken_lock_is_named(project: CommandLine) -> None:
    file(project, "adapters.lock").write_text("schema_version = 1\nx = 2\n")
    for words in (("sync", "--frozen"), ("lock",), ("add", "acme/other")):
        done = project(*words)
        assert done.code == 4
        assert done.complaint[0] == "adapters.lock: x: unknown field"


def test_diff_tells_config_files_and_tensors(adapterhub: CommandLine, adapter: Path) -> None:
    pytest.importorskip("torch")
    write_lora(adapter.with_name("other"), lora_alpha=8)
    done = adapterhub.ok("diff", "adapter", "./other").out
    assert "lora_alpha" in done
    assert "different: relative difference 50.00% over 2 modules" in done
    found = adapterhub.ok("diff", "adapter", "./other", "--json").json
    assert [item["key"] for item in found["files"]] == ["adapter_config.json"]
    assert found["tensors"]["modules"][0]["cosine"] == pytest.approx(1.0)


def test_an_adapter_does_not_differ_from_itself(adapterhub: CommandLine, adapter: Path) -> None:
    pytest.importorskip("torch")
    found = adapterhub.ok("diff", "adapter", "adapter", "--json").json
    assert found["identical"]
    assert found["tensors"]["near_duplicate"]
    assert "equal up to rounding" in adapterhub.ok("diff", "adapter", "adapter").out


def test_the_order_of_a_set_is_no_difference(adapterhub: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for name, targets in (("one", ["q_proj", "x"]), ("two", ["x", "q_proj"])):
        write_lora(tmp_path / name, target_modules=targets)
    assert adapterhub.ok("diff", "./one", "./two", "--json").json["config"] == []
