"""A hub on loopback that speaks enough of the protocol for the real client, and can misbehave.

Test equipment: keeps everything in memory, checks one token, and remembers every request.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_memory import (
    Fault,
    Hub,
    Repo,
    Request,
    changed,
    git_blob,
    sibling,
    tags,
    tree_entry,
)

__all__ = ["Fault", "Hub", "running_hub"]

STEP = 64 << 10


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        memory = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    memory: Hub
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True
    body = b""

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._dispatch()

    def do_HEAD(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_DELETE(self) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, dict(self.headers))
        with self.memory.guard:
            self.memory.requests.append(request)
        fault = self.memory.fault(request)
        # A client that was killed leaves a broken pipe, which is what some tests are about.
        with contextlib.suppress(ConnectionError):
            if fault is not None and fault.kind == "status":
                self._error(fault.value, "", "switched to fail")
            elif fault is not None and fault.kind == "redirect":
                self._send(302, b"", {"Location": f"{fault.where}{self.path}"})
            elif fault is not None and fault.kind == "html" and "/api/" in self.path:
                self._send(200, b"<!DOCTYPE html><p>hello", {"Content-Type": "text/html"})
            else:
                self._route(fault)

    def _route(self, fault: Fault | None) -> None:
        path = urlsplit(self.path).path
        parts = path.strip("/").split("/")
        if path == "/api/models":
            self._list()
        elif path == "/api/repos/create":
            self._create()
        elif path == "/api/repos/delete":
            self._delete()
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path.startswith("/api/models/") and len(parts) >= 4:
            self._repo(f"{parts[2]}/{parts[3]}", parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._resolve(f"{parts[0]}/{parts[1]}", unquote(parts[3]), parts[4:], fault)
        else:
            self._error(404, "", "no such page")

    def _allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.memory.token}"

    def _visible(self, repo_id: str) -> Repo | None:
        repo = self.memory.repos.get(repo_id)
        if repo is None or (repo.private and not self._allowed()):
            self._error(404 if self._allowed() else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def _writable(self) -> bool:
        if not self._allowed():
            self._error(403, "", "you have no right to write here")
        return self._allowed()

    def _create(self) -> None:
        if not self._writable():
            return
        asked = json.loads(self.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        answer = {"url": f"{self.memory.url}/{repo_id}", "name": repo_id}
        if repo_id in self.memory.repos:
            self._send(409, json.dumps({"error": "exists", **answer}).encode(), {})
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.memory.put(repo_id, {".gitattributes": b"* text=auto\n"}, private=private)
        self._json(answer)

    def _delete(self) -> None:
        asked = json.loads(self.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        if self._writable() and self._visible(repo_id):
            del self.memory.repos[repo_id]
            self._json({})

    def _list(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        found = []
        for repo_id, repo in sorted(self.memory.repos.items()):
            labels = tags(repo.commits[-1][1])
            wanted = query.get("filter", [])
            author = query.get("author", [repo_id.split("/")[0]])[0]
            fits = query.get("search", [""])[0] in repo_id and all(tag in labels for tag in wanted)
            if fits and repo_id.startswith(f"{author}/") and (not repo.private or self._allowed()):
                found.append({"id": repo_id, "sha": repo.head, "tags": labels})
        self._json(found[: int(query.get("limit", ["100"])[0])])

    def _repo(self, repo_id: str, rest: list[str]) -> None:
        repo = self._visible(repo_id)
        if repo is None:
            return
        if rest[:1] == ["preupload"]:
            files = json.loads(self.body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [{"path": file["path"], **modes} for file in files]})
        elif rest[:1] == ["commit"]:
            self._commit(repo_id, repo)
        elif rest[:1] == ["tree"]:
            found = repo.files(unquote(rest[1]))
            self._json([tree_entry(*file) for file in sorted(found[1].items())] if found else [])
        elif not rest or rest[0] == "revision":
            self._info(repo_id, repo, unquote(rest[1]) if rest else "main")
        else:
            self._error(404, "", "no such page")

    def _info(self, repo_id: str, repo: Repo, revision: str) -> None:
        found = repo.files(revision)
        if found is None:
            self._error(404, "RevisionNotFound", "Invalid rev id")
            return
        commit, files = found
        self._json(
            {
                "_id": repo.uuid,
                "id": repo_id,
                "sha": commit,
                "private": repo.private,
                "tags": tags(files),
                "createdAt": "2026-01-01T00:00:00.000Z",
                "lastModified": "2026-01-02T00:00:00.000Z",
                "siblings": [sibling(path, data) for path, data in sorted(files.items())],
            }
        )

    def _commit(self, repo_id: str, repo: Repo) -> None:
        if not self._writable():
            return
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, repo.head):
            self._error(412, "", "A commit has happened since. Please refresh and try again.")
            return
        files = dict(repo.commits[-1][1])
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        commit = self.memory.put(repo_id, files)
        url = f"{self.memory.url}/{repo_id}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _resolve(self, repo_id: str, revision: str, parts: list[str], fault: Fault | None) -> None:
        repo = self._visible(repo_id)
        if repo is None:
            return
        if repo.gated and not self._allowed():
            self._error(401, "GatedRepo", "Access to this model is restricted")
            return
        path = unquote("/".join(parts))
        found = repo.files(revision)
        if found is None or path not in found[1]:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        self._file(found[0], found[1][path], fault)

    def _file(self, commit: str, data: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        if kind == "html":
            self._send(200, b"<!DOCTYPE html><p>log in", {"Content-Type": "text/html"})
            return
        if fault is not None and kind == "wrong_byte":
            data = changed(data, fault)
        if kind == "short":
            data = data[: len(data) // 2]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_blob(data)}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked and kind != "ignore_range":
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data)), len(data) - 1)
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            self._send(206, data[start : end + 1], headers, fault)
        else:
            self._send(200, data, headers, fault)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(
        self, status: int, data: bytes, headers: Mapping[str, str], fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with self.memory.guard:
            self.memory.sent.append((self.path, len(data)))
        if fault is not None and fault.kind == "drop":
            self.wfile.write(data[: fault.value])
            self.close_connection = True
            return
        for start in range(0, len(data), STEP):
            self.wfile.write(data[start : start + STEP])
            if fault is not None and fault.kind == "slow":
                time.sleep(fault.value / 1000)
