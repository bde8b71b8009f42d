"""Many at once, killed at any moment, on a full disk: the cache and the registry stay whole."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterhub.domain.refs import parse_ref
from adapterhub.errors import StorageError
from adapterhub.hub import client
from adapterhub.hub.home import cache_dir
from adapterhub.hub.objects import parts_dir
from tests.adapter_files import write_lora
from tests.hub_server import Fault, Hub
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")
ROOT = Path(__file__).parents[3]
PULL = "from adapterhub.domain.refs import parse_ref; from adapterhub.hub import client; "


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def crashes(scenario: str, *arguments: object) -> dict[str, object]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.unit.hub.crashes", scenario, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


@pytest.fixture
def revised(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "revised", lora_alpha=8)


def test_sixteen_pulls_at_once_are_one_download(big_adapter: Path, hub: Hub) -> None:
    client.push(big_adapter, REF, to="hub")
    hub.faults.append(Fault(kind="slow", path="safetensors", value=5))
    code = """
    import os
    import huggingface_hub
    from adapterhub.domain.refs import parse_ref
    from adapterhub.hub import client

    def child():
        pulled = client.pull(parse_ref("hub:user/en2ko-lora"))
        os._exit(0 if len(list(pulled.folder.iterdir())) == 2 else 1)

    for _ in range(16):
        if os.fork() == 0:
            try:
                child()
            finally:
                os._exit(2)
    print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(16)])
    """
    out, err = python(code).communicate()
    assert out.strip() == str([0] * 16), err
    assert len(hub.downloads("adapter_model.safetensors")) == 1
    assert len(hub.downloads("adapter_config.json")) == 1


@pytest.mark.parametrize("fraction", [0.2, 0.7])
def test_a_killed_download_is_resumed(big_adapter: Path, hub: Hub, fraction: float) -> None:
    client.push(big_adapter, REF, to="hub")
    slow = Fault(kind="slow", path="safetensors", value=20)
    hub.faults.append(slow)
    size = (big_adapter / "adapter_model.safetensors").stat().st_size
    with python(PULL + "client.pull(parse_ref('hub:user/en2ko-lora'))") as process:
        wait_for_part(int(size * fraction))
        process.kill()
        process.communicate()
    hub.faults.clear()
    assert client.installed() == []
    pulled = client.pull(REF)
    assert contents(pulled.folder) == contents(big_adapter)
    assert pulled.downloaded_bytes < sum(map(len, contents(big_adapter).values()))
    assert hub.downloads("safetensors")[-1].headers["Range"].startswith("bytes=")


def wait_for_part(size: int) -> None:
    """Until the weights' part file has grown to `size` bytes."""
    for _ in range(2000):
        if any(part.stat().st_size >= size for part in parts_dir().glob("*.part")):
            return
        time.sleep(0.01)
    raise AssertionError("the download did not get that far")


@pytest.mark.parametrize("scenario", ["pull-next", "push-next"])
def test_killed_at_some_file_operations(
    adapter: Path, revised: Path, tmp_path: Path, scenario: str
) -> None:
    answer = crashes(scenario, tmp_path / "homes", 1, 200, 7, adapter, revised)
    assert answer["failures"] == {}
    assert answer["reached"] > 20  # type: ignore[operator]


def test_a_first_pull_killed_at_some_file_operations(
    adapter: Path, hub: Hub, tmp_path: Path
) -> None:
    client.push(adapter, REF, to="hub")
    answer = crashes("pull", tmp_path / "homes", 1, 200, 7, adapter, adapter, "hub")
    assert answer["failures"] == {}
    assert answer["reached"] > 20  # type: ignore[operator]


@pytest.mark.long
@pytest.mark.parametrize("scenario", ["pull", "pull-next", "push-next"])
def test_killed_at_every_file_operation(
    adapter: Path, revised: Path, hub: Hub, tmp_path: Path, scenario: str
) -> None:
    client.push(revised, REF, to="hub")
    answer = crashes(scenario, tmp_path / "homes", 1, 1000, 1, adapter, revised, "hub")
    assert answer["failures"] == {}
    assert answer["reached"] > 20  # type: ignore[operator]


@pytest.fixture
def tiny_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home on a disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.name == "posix"
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a file system needs root")
    monkeypatch.setenv("ADAPTERHUB_HOME", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_nothing_half_is_shown(
    tiny_disk: Path, big_adapter: Path, adapter: Path, hub: Hub
) -> None:
    client.push(big_adapter, REF, to="hub")
    with pytest.raises(StorageError, match="the disk is full"):
        client.pull(REF.on("hub"))
    assert client.installed() == []
    with pytest.raises(StorageError, match="the disk is full"):
        client.push(big_adapter, REF, to="local")
    small = parse_ref("user/small")
    assert not list(parts_dir().iterdir())  # what cannot be finished must not fill the disk
    client.push(adapter, small, to="local")
    assert contents(client.pull(small).folder) == contents(adapter)


def test_a_file_size_limit_is_a_storage_error(big_adapter: Path, hub: Hub) -> None:
    client.push(big_adapter, REF, to="hub")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageError, match=r"ulimit -f"):
            client.pull(REF)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(client.pull(REF).folder) == contents(big_adapter)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace injects the errors")
@pytest.mark.parametrize(
    ("call", "says"),
    [("fsync:error=EIO", "input/output error"), ("rename:error=ENOSPC", "the disk is full")],
)
def test_a_failing_disk_is_said_and_survived(
    adapter: Path, tmp_path: Path, call: str, says: str
) -> None:
    client.push(adapter, REF)
    code = (
        "from adapterhub.errors import StorageError\n"
        "from adapterhub.domain.refs import parse_ref; from adapterhub.hub import client\n"
        "try:\n    client.pull(parse_ref('user/en2ko-lora'))\n"
        "except StorageError as error:\n    print(error.message)\n"
    )
    for when in range(1, 12, 2):
        shutil.rmtree(cache_dir(), ignore_errors=True)
        inject = f"inject={call}:when={when}"
        ended = subprocess.run(
            ["strace", "-f", "-o", "/dev/null", "-e", inject, sys.executable, "-B", "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert not ended.stdout or says in ended.stdout
        assert when > 1 or ended.stdout
        assert contents(client.pull(REF).folder) == contents(adapter)


def test_a_cache_that_cannot_be_written_names_the_folder(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("ADAPTERHUB_HOME", str(blocked))
    with pytest.raises(StorageError, match="cannot create"):
        client.push(adapter, REF)
    assert not cache_dir().exists()
