"""What `adapterhub --help` costs beside `python -c 'import click'`, interleaved."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
HELP = "import sys; sys.argv[1:] = ['--help']; from adapterhub.cli.main import run; run()"


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return time.perf_counter() - started


def main() -> None:
    seconds(HELP)
    pairs = [(seconds(HELP), seconds("import click")) for _ in range(ROUNDS)]
    ours, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"adapterhub --help   {ours * 1000:6.1f} ms")
    print(f"import click        {peer * 1000:6.1f} ms   ratio {ours / peer:.2f}")


if __name__ == "__main__":
    main()
