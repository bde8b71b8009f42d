"""Run commands in forks of this process, and have strace fail or kill them at a system call.

Test equipment: a fork costs no start-up, so thousands of points cost minutes. Only a process with
one thread may use it. Knows no command.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from adapterhub.cli.main import run as adapterhub

# What can change a disk, and what opens it. `?`: not every architecture has each of them.
CALLS = (
    "?open", "openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "?rename",
    "?renameat", "renameat2", "?link", "linkat", "?unlink", "unlinkat", "?mkdir", "mkdirat",
    "?rmdir", "?chmod", "fchmod", "fchmodat", "flock",
)  # fmt: skip
NOTHING = "error=EIO:when=65535"
_ANY_TRACER = 0x59616D61, -1  # prctl's PR_SET_PTRACER, PR_SET_PTRACER_ANY


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, or minus the signal; `hit` is the call that was tampered
    with, None when the run made fewer calls."""

    code: int
    said: str
    hit: str | None = None

    @property
    def explained(self) -> bool:
        """One line of cause and one next move, and no traceback."""
        heads = [line.partition(":")[0] for line in self.said.splitlines()]
        return heads.count("error") == heads.count("hint") == 1 and "Traceback" not in self.said


def available() -> bool:
    """Whether strace is here and may look at a process of ours."""
    if shutil.which("strace") is None:
        return False
    tried = ["strace", "-o", os.devnull, "-e", "inject=openat:error=EIO:when=9999", "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def counts(words: tuple[str, ...], work: Path) -> dict[str, int]:
    """How often a run makes each of CALLS."""
    run(words, work, call=",".join(CALLS), fault=NOTHING)
    seen = (work / "strace").read_text(errors="replace")
    made = Counter(re.findall(r"^\d+ +(\w+)\(", seen, re.MULTILINE))
    return {call: made[call.strip("?")] for call in CALLS if made[call.strip("?")]}


def run(words: tuple[str, ...], work: Path, *, call: str = "", fault: str = "") -> Ended:
    """Run `adapterhub` with these words; `fault` is strace's, such as `error=EIO:when=3`.

    `work` holds what the run says and what strace saw.
    """
    errors, log = work / "stderr", work / "strace"
    (wait, go), (heard, ready) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        _be(words, errors, ready, wait)
    os.close(wait)
    os.close(ready)
    os.read(heard, 1)  # strace shall see the command alone, and nothing of how it is set up
    os.close(heard)
    tracer = _attach(child, call, fault, log) if fault else None
    os.write(go, b"x")
    os.close(go)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if tracer is not None:
        tracer.communicate()
    seen = log.read_text(errors="replace") if fault else ""
    hits = [line for line in seen.splitlines() if "(INJECTED)" in line]
    if status == -signal.SIGKILL:  # strace sees no end of a call that its maker did not survive
        hits = [line for line in seen.splitlines() if call.strip("?") in line][-1:] or [call]
    return Ended(status, errors.read_text(errors="replace"), hits[0] if hits else None)


def _attach(child: int, call: str, fault: str, log: Path) -> subprocess.Popen[str]:
    watch = ["-e", f"trace={call}", "-e", "signal=none", "-e", f"inject={call}:{fault}"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-s", "0", "-o", str(log), *watch, "-p", str(child)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    assert "attached" in said, said
    return tracer


def _be(words: tuple[str, ...], errors: Path, ready: int, wait: int) -> None:
    """Become the command; never returns."""
    code = 70
    try:
        ctypes.CDLL(None).prctl(*_ANY_TRACER, 0, 0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        said = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for handle, target in ((null, 0), (null, 1), (said, 2)):
            os.dup2(handle, target)
        sys.argv = ["adapterhub", *words]
        os.write(ready, b"x")
        os.read(wait, 1)
        adapterhub()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
