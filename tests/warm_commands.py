"""Run commands in processes that need not import torch first: forked from one that has.

Each has arguments, a folder, an environment and three files of its own, and its memory dies with
it, as that of the console script does. Test equipment: knows no command.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn


class Warm:
    """What was imported read the variables that it is started with."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._line = ours.makefile("rw")
        ours.close()
        atexit.register(self._end)

    def run(
        self, words: list[str], *, cwd: Path | None, environment: Mapping[str, str], stdin: str
    ) -> tuple[int, str, str]:
        """The exit code, minus a signal's number; and what was said on stdout and stderr."""
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            files[0].write_text(stdin)
            asked = {
                "words": words,
                "cwd": str(cwd or Path.cwd()),
                "environment": dict(environment),
                "files": [str(file) for file in files],
            }
            self._line.write(json.dumps(asked) + "\n")
            self._line.flush()
            return int(self._line.readline()), files[1].read_text(), files[2].read_text()

    def _end(self) -> None:
        self._line.close()
        self._process.wait()


@functools.cache
def warm(variables: frozenset[tuple[str, str]]) -> Warm:
    return Warm(dict(variables))


def _serve(number: int) -> None:
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    # Else each process goes through all of it once more when it ends, which takes seconds.
    gc.freeze()
    line = socket.socket(fileno=number).makefile("rw")
    for request in line:
        child = os.fork()
        if not child:
            _become(**json.loads(request))
        _, status = os.waitpid(child, 0)
        line.write(f"{os.waitstatus_to_exitcode(status)}\n")
        line.flush()


def _become(
    *, words: list[str], cwd: str, environment: Mapping[str, str], files: list[str]
) -> NoReturn:
    flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (file, flag) in enumerate(zip(files, flags, strict=True)):
        os.dup2(os.open(file, flag), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    from adapterhub.cli.main import run

    run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
