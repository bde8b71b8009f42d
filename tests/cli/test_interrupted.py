"""Stopped, or out of disk: the code says so, nothing is half there, and the next try works."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapter_files import f32, lora_tensors, write_lora
from tests.command_line import SCRIPT, CommandLine
from tests.hub_server import Fault, Hub, running_hub

FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A MiB of weights."""
    modules = tuple(f"model.layers.{index}.self_attn.q_proj" for index in range(2))
    shapes = lora_tensors(modules=modules)
    tensors = {name: f32((2, 65536) if "lora_A" in name else (65536, 2)) for name in shapes}
    return write_lora(tmp_path / "big", tensors=tensors)


@pytest.fixture
def slow_hub(big: Path) -> Iterator[Hub]:
    """Serves its weights in seconds, once; after that at full speed."""
    with running_hub() as hub:
        hub.put("acme/big", {name: (big / name).read_bytes() for name in FILES})
        hub.faults.append(Fault(kind="slow", path="safetensors", value=500, times=1))
        yield hub


def wait_for_download(hub: Hub) -> None:
    for _ in range(1000):
        if hub.downloads("safetensors"):
            time.sleep(0.3)  # some bytes are on the disk by now
            return
        time.sleep(0.01)
    raise AssertionError("the weights were never asked for")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "error: interrupted; what was finished is kept"),
        (signal.SIGTERM, 143, "error: stopped by SIGTERM; what was finished is kept"),
    ],
)
def test_a_stopped_pull_leaves_nothing_half_done_and_can_be_repeated(
    adapterhub: CommandLine, slow_hub: Hub, number: int, code: int, said: str
) -> None:
    run = adapterhub.having(HF_ENDPOINT=slow_hub.url)
    process = run.start("pull", "acme/big", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_download(slow_hub)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (code, "", said)
    assert run.ok("list", "--json").json == []
    assert not list((run.home / "cache").glob("snapshots/*/*/*/*"))
    assert not list((run.home / "cache").glob("tmp/*"))
    assert run.ok("pull", "acme/big", "--json").json["ok"] is True


def test_ctrl_c_on_a_terminal_says_so_once(adapterhub: CommandLine, slow_hub: Hub) -> None:
    run = adapterhub.having(HF_ENDPOINT=slow_hub.url)
    ours, theirs = os.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = run.start("pull", "acme/big", start_new_session=True, **streams)
    os.close(theirs)
    wait_for_download(slow_hub)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert os.read(ours, 1 << 16).decode().count("error: interrupted") == 1
    os.close(ours)


# --- the disk -------------------------------------------------------------------------------


def on_small_disk(place: Path, size: str, line: str, run: CommandLine) -> list[str]:
    """Run a shell line with a file system of `size` at `place`, gone afterwards; its last lines."""
    place.mkdir()
    script = f'mount -t tmpfs -o size={size} none "{place}" && {line}'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script],
        env=run.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip(f"this machine lets nobody mount a small disk: {done.stderr.strip()}")
    return done.stdout.splitlines() + done.stderr.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_ends_a_pull_and_keeps_what_was_there(
    adapterhub: CommandLine, adapter: Path, big: Path, tmp_path: Path
) -> None:
    shelf = (tmp_path / "shelf").as_uri()
    adapterhub.ok("remote", "add", "shelf", shelf)
    adapterhub.ok("push", adapter, "shelf:acme/small")
    adapterhub.ok("push", big, "shelf:acme/big")
    small = tmp_path / "small"
    hub = f'"{SCRIPT}"'
    seen = on_small_disk(
        small,
        "600k",
        f"{hub} remote add shelf {shelf} 2>&1 && {hub} pull shelf:acme/small >/dev/null 2>&1 && "
        f"{{ {hub} pull shelf:acme/big; echo code=$?; {hub} verify shelf:acme/small; "
        f"{hub} list; find {small} -name '*.part*' -o -path '*/tmp/*'; }} 2>&1",
        adapterhub.having(ADAPTERHUB_HOME=str(small / "home")),
    )
    assert "code=9" in seen
    assert any(line.startswith("error: cannot ") and "disk is full" in line for line in seen)
    assert "hint:  free some space, or point ADAPTERHUB_HOME at another disk" in seen
    assert "shelf:acme/small   no problem found" in seen
    assert not [line for line in seen if line.startswith("acme/big")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_may_not_be_written_is_named(adapterhub: CommandLine, adapter: Path) -> None:
    adapterhub.home.mkdir(mode=0o555)
    done = adapterhub("push", adapter, "acme/tiny-lora")
    assert (done.code, "permission denied" in done.complaint[0]) == (9, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a read-only disk")
def test_a_read_only_home_can_be_read_and_names_itself_when_it_cannot_be_written(
    adapterhub: CommandLine, adapter: Path, tmp_path: Path
) -> None:
    adapterhub.ok("push", adapter, "acme/tiny-lora")
    adapterhub.ok("pull", "acme/tiny-lora")
    home, hub = adapterhub.home, f'"{SCRIPT}"'
    seen = on_small_disk(
        tmp_path / "unused",
        "16k",
        f'mount --bind -o ro "{home}" "{home}" && mount -o remount,bind,ro "{home}" && '
        f"{{ {hub} list; {hub} show local:acme/tiny-lora; {hub} remote add x https://host; "
        "echo code=$?; } 2>&1",
        adapterhub,
    )
    assert [line for line in seen if line.startswith("acme/tiny-lora  ")]
    assert "code=9" in seen
    assert any("the file system is read-only" in line for line in seen)
