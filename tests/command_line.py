"""Run the installed console script as people and scripts do: as a process, on a pipe or a terminal.

Test equipment: knows nothing of any command.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.warm_commands import warm

SCRIPT = Path(sys.executable).with_name("adapterhub")
NOBODY = "http://127.0.0.1:9"  # a port that nothing listens on
_DROPPED = (
    "HF_TOKEN", "ADAPTERHUB_DISABLE_PLUGINS", "ADAPTERHUB_DEBUG", "COLUMNS", "NO_COLOR",
    "FORCE_COLOR", "PYTHONPATH", "PYTHONWARNINGS",
)  # fmt: skip
_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    err: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def complaint(self) -> list[str]:
        """The lines that begin with `error:` or `hint:`, without those words."""
        lines = self.err.splitlines()
        return [line[7:] for line in lines if line.startswith(("error: ", "hint:  "))]


@dataclass(frozen=True)
class CommandLine:
    """`adapterhub` with a home of its own and no hub, unless `variables` say otherwise.

    `forked` spares a command that loads a base its imports; to start one, or to have it on a
    terminal, still is to start the console script.
    """

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    forked: bool = False

    def __call__(self, *words: str | Path, stdin: str = "") -> Done:
        if self.forked:
            return self._forked(self.words(*words), stdin)
        done = subprocess.run(
            self.words(*words),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            cwd=self.cwd,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def _forked(self, words: list[str], stdin: str) -> Done:
        environment = self.environment
        # What only this package reads, when it runs.
        imported = {
            k: v for k, v in environment.items() if not k.startswith(("ADAPTERHUB_", "PYTEST_"))
        }
        code, out, err = warm(frozenset(imported.items())).run(
            words, cwd=self.cwd, environment=environment, stdin=stdin
        )
        assert "Traceback" not in err, err
        return Done(code, out, err)

    def ok(self, *words: str | Path) -> Done:
        done = self(*words)
        assert done.code == 0, done.err
        return done

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(self.words(*words), text=True, env=self.environment, **options)

    def on_terminal(self, *words: str | Path, columns: int = 100, typed: str = "") -> Done:
        """Run on a terminal of this width; `out` is everything that appeared on it."""
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        process = self.start(*words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=self.cwd)
        os.close(theirs)
        os.write(ours, typed.encode())
        seen = bytearray()
        while chunk := _read(ours):
            seen += chunk
        os.close(ours)
        return Done(process.wait(), seen.decode().replace("\r\n", "\n"))

    def having(self, **variables: str) -> CommandLine:
        return replace(self, variables={**self.variables, **variables})

    def words(self, *words: str | Path) -> list[str]:
        return [str(SCRIPT), *(str(word) for word in words)]

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in _DROPPED}
        fixed = {"ADAPTERHUB_HOME": str(self.home), "HF_ENDPOINT": NOBODY, "TERM": "xterm-256color"}
        # Another thread costs more than it computes on a base as small as those here.
        alone = {"OMP_NUM_THREADS": "1"} if self.forked else {}
        return {**kept, **fixed, **alone, **self.variables}


def unstyled(text: str) -> str:
    return _STYLE.sub("", text)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux's way to say that the other side is closed
        return b""
