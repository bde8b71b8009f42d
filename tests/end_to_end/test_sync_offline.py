"""Without any network at all, a lock gives the same bytes again, and nothing but those.

The commands run in an empty network namespace: not even loopback is up.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.adapter_files import lora_tensors, write_lora
from tests.base_records import write_base_record
from tests.command_line import CommandLine, Done
from tests.hub_server import running_hub


@functools.cache
def unshare() -> tuple[str, ...] | str:
    """The words before a command that take its network away, or why there are none here."""
    if shutil.which("unshare") is None:
        return "there is no unshare here"
    for words in (("unshare", "-n"), ("unshare", "-rn")):
        done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return words
    return f"no network namespace: {done.stderr.strip()}"


def alone(run: CommandLine, *words: str | Path) -> Done:
    """Run a command where no network exists."""
    prefix = unshare()
    assert not isinstance(prefix, str)
    done = subprocess.run(
        [*prefix, *run.words(*words)],
        capture_output=True,
        text=True,
        check=False,
        env=run.environment,
        cwd=run.cwd,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def project(tmp_path: Path) -> CommandLine:
    """One adapter from `local` on a base, one from a hub that is gone by now; both locked."""
    if isinstance(reason := unshare(), str):
        pytest.skip(reason)
    run = CommandLine(tmp_path / "home", cwd=tmp_path)
    write_base_record(run.home, "tiny")
    run.ok("push", write_lora(tmp_path / "one"), "acme/one")
    run.ok("add", "acme/one", "--base", "tiny")
    with running_hub() as hub:
        two = write_lora(tmp_path / "two", r=3, tensors=lora_tensors(3))  # shares no file
        hub.put("acme/two", {path.name: path.read_bytes() for path in two.iterdir()})
        online = run.having(HF_ENDPOINT=hub.url, ADAPTERHUB_TOKEN_HUB=hub.token)
        online.ok("add", "hub:acme/two", "--name", "second")
        return run.having(HF_ENDPOINT=hub.url)


def held(run: CommandLine, name: str) -> Path:
    """A folder of the cache."""
    (found,) = (run.home / "cache" / "snapshots").glob(f"*/acme/{name}/*/")
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_bytes_are_rebuilt_from_the_cache_alone(
    project: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "home" / "registry").rename(tmp_path / "away")  # offline is the cache alone
    lock = (tmp_path / "adapters.lock").read_bytes()
    done = alone(project, "sync", "--frozen", "--offline", "--into", "out")
    assert done.code == 0, done.err
    assert files(tmp_path / "out" / "one") == files(tmp_path / "one")
    assert files(tmp_path / "out" / "second") == files(tmp_path / "two")
    assert (tmp_path / "adapters.lock").read_bytes() == lock


def test_the_namespace_really_has_no_network(project: CommandLine, tmp_path: Path) -> None:
    done = alone(project, "pull", "hub:acme/two")
    assert done.code == 7


def test_a_changed_byte_is_refused_by_name(project: CommandLine, tmp_path: Path) -> None:
    path = held(project, "two") / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    os.chmod(path, 0o644)
    path.write_bytes(data)
    done = alone(project, "sync", "--frozen", "--offline", "--into", "out")
    assert done.code == 4
    assert done.complaint[0].startswith("second: in the cache of acme/two@")
    assert "adapter_model.safetensors has sha256" in done.complaint[0]
    assert len(done.complaint) == 2
    assert not (tmp_path / "out").exists()


def test_a_changed_commit_is_refused_by_name(project: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "adapters.lock"
    commit = held(project, "one").name
    path.write_text(path.read_text().replace(commit, "0" * 40))
    done = alone(project, "sync", "--frozen", "--offline")
    assert done.code == 3
    assert "one (acme/one@000000000000)" in done.complaint[0]
    assert "second" not in done.complaint[0]


def test_a_changed_base_is_refused_by_name(project: CommandLine) -> None:
    spec = project.home / "bases" / "tiny" / "base.json"
    spec.write_text(spec.read_text().replace("3" * 64, "9" * 64))
    done = alone(project, "sync", "--frozen", "--offline")
    assert done.code == 5
    assert done.complaint[0].startswith("one: the base tiny is not the one that was locked")


def test_what_is_missing_is_named_without_a_question_to_anybody(
    project: CommandLine,
) -> None:
    project.ok("rm", "-y", "acme/one")
    done = alone(project, "sync", "--frozen", "--offline")
    assert done.code == 3
    assert done.complaint[0].startswith("not in the cache: one (acme/one@")
