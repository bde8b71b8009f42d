"""What a hub on loopback remembers, and the faults it can be told to have.

Test equipment: no HTTP; `tests.hub_server` serves it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with requests whose path contains `path`, the next `times` times.

    kind: wrong_byte (the one at `value`, with the bits of `mask` turned), short, html,
    ignore_range, drop (after `value` bytes), status (`value`), redirect (to `where` + the path),
    slow (`value` milliseconds per 64 KiB)
    """

    kind: str
    path: str = ""
    value: int = 0
    where: str = ""
    times: int = 1_000_000
    mask: int = 1
    methods: tuple[str, ...] = ("GET",)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Repo:
    uuid: str
    commits: list[tuple[str, dict[str, bytes]]]
    private: bool = False
    gated: bool = False

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((c for c in self.commits if c[0].startswith(revision)), None)


@dataclass
class Hub:
    """The server's memory. `token` is the one that may write and see private repositories."""

    token: str = "hf_testtoken1234"
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def put(self, repo_id: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """Commit exactly these files, creating the repository if need be; returns the commit."""
        with self.guard:
            repo = self.repos.get(repo_id)
            if repo is None:
                uuid = hashlib.sha256(f"{repo_id}{time.time_ns()}".encode()).hexdigest()[:24]
                repo = self.repos[repo_id] = Repo(uuid, [], private=private)
            seed = f"{repo.uuid}{len(repo.commits)}{sorted(files)}".encode()
            commit = hashlib.sha1(seed + b"".join(files.values())).hexdigest()
            repo.commits.append((commit, dict(files)))
            return commit

    def bytes_of(self, path: str) -> int:
        """How many bytes of bodies were answered for paths that hold `path`."""
        return sum(count for asked, count in self.sent if path in asked)

    def downloads(self, path: str = "/resolve/") -> list[Request]:
        return [r for r in self.requests if r.method == "GET" and path in r.path]

    def fault(self, request: Request) -> Fault | None:
        with self.guard:
            for fault in self.faults:
                matched = fault.path in request.path and request.method in fault.methods
                if matched and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


def changed(data: bytes, fault: Fault) -> bytes:
    """The data with the wrong byte."""
    made = bytearray(data)
    made[fault.value] ^= fault.mask
    return bytes(made)


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sibling(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_blob(data)}
    if path.endswith((".safetensors", ".bin")):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
    return entry


def tree_entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": git_blob(data)}


def tags(files: Mapping[str, bytes]) -> list[str]:
    if "adapter_config.json" not in files:
        return []
    config = json.loads(files["adapter_config.json"])
    base = config.get("base_model_name_or_path", "")
    return ["peft", config.get("peft_type", "").lower(), f"base_model:adapter:{base}"]
