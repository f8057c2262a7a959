"""A small model hub on this machine: speaks Hugging Face's and ModelScope's file protocols, and fails as it is told to."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "abcd"
CHUNK = 16384


@dataclass
class Repository:
    """`files` by name; those that end in .safetensors are stored as LFS, behind a redirect."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    commit: str = COMMIT
    tags: tuple[str, ...] = ()


@dataclass
class Hub:
    """What it holds, and how it misbehaves.

    `cut`: so many answers of more than `cut_after` bytes break off there. `bytes_per_second`: of each answer, 0: all at
    once. `token`: the only one that it accepts. `status`: given instead of every answer. `silent`: takes connections and
    says nothing. `asked`: (method, path, Range, Authorization).
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    cut: int = 0
    cut_after: int = 100_000
    bytes_per_second: int = 0
    token: str = "hf_right"
    status: int = 0
    silent: bool = False
    spoiled: bool = False
    ranges: bool = True
    address: str = ""
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def store(self) -> str:
        """Where the large files lie: another host, as far as a client can tell."""
        return self.address.replace("127.0.0.1", "localhost")

    def sent(self, word: str) -> list[str]:
        """The Range headers, or "", of the GETs for paths with `word`."""
        return [asked_range for method, path, asked_range, _ in self.asked if method == "GET" and word in path]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    of: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {key: values[0] for key, values in parse_qs(parts.query).items()}
        given = self.headers.get("Authorization", "")
        self.of.asked.append((self.command, self.path, self.headers.get("Range", ""), given))
        if self.of.silent:
            time.sleep(30)
        elif self.of.status and path != "/":
            self._answer(self.of.status, {"error": "as told"})
        elif given and given != f"Bearer {self.of.token}":
            self._answer(401, {"error": "token"}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path.startswith("/api/v1/models/"):
            self._model_scope(path.removeprefix("/api/v1/models/"), query)
        elif path.startswith("/api/models/"):
            self._hugging_face(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._resolve(path)
        elif path.startswith("/cdn/"):
            found = {
                hashlib.sha256(data).hexdigest(): data
                for one in self.of.repositories.values()
                for data in one.files.values()
            }
            self._bytes(found[path.removeprefix("/cdn/")])
        else:
            self._answer(200, {"Data": {}})

    def _repository(self, name: str) -> Repository | None:
        found = self.of.repositories.get(name)
        return None if found and found.private and not self.headers.get("Authorization") else found

    def _hugging_face(self, path: str) -> None:
        owner, name, *rest = path.split("/")
        found = self._repository(f"{owner}/{name}")
        if found is None:
            self._answer(401 if not self.headers.get("Authorization") else 404, {"error": "x"},
                         {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})  # fmt: skip
        elif len(rest) > 1 and rest[1] not in ("main", found.commit, *found.tags):
            self._answer(404, {"error": "x"}, {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            self._answer(200, [_entry(name, data) for name, data in found.files.items()])
        else:
            siblings = [{"rfilename": file} for file in found.files]
            self._answer(200, {"id": f"{owner}/{name}", "sha": found.commit, "siblings": siblings})

    def _resolve(self, path: str) -> None:
        name, _, rest = path[1:].partition("/resolve/")
        file = rest.partition("/")[2]
        found = self._repository(name)
        if found is None:
            return self._answer(404, {"error": "x"}, {"X-Error-Code": "RepoNotFound"})
        if found.gated and not self.headers.get("Authorization"):
            return self._answer(401, {"error": "x"}, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        data, headers = found.files[file], {"X-Repo-Commit": found.commit}
        if not file.endswith(".safetensors"):
            return self._bytes(data, {**headers, "ETag": f'"{_entry(file, data)["oid"]}"'})
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {
            "X-Linked-ETag": f'"{sha256}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.of.store}/cdn/{sha256}",
        }
        self._answer(302, {}, headers)
        return None

    def _model_scope(self, path: str, query: dict[str, str]) -> None:
        owner, name, *_ = path.split("/")
        found = self._repository(f"{owner}/{name}")
        if found is None or query.get("Revision") not in ("master", *found.tags):
            self._answer(404, {"Code": 10010205001, "Message": "not found"})
        elif found.gated and not self.headers.get("Authorization"):
            self._answer(403, {"Code": 10010205003, "Message": "no access"})
        elif file := query.get("FilePath"):
            self._bytes(found.files[file])
        else:
            files = [{"Path": name, "Name": name, "Size": len(data), "Type": "blob", "Sha256": hashlib.sha256(data).hexdigest()}
                     for name, data in found.files.items()]  # fmt: skip
            self._answer(200, {"Code": 200, "Data": {"Files": files}})

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            **(headers or {}),
            "Content-Length": str(len(data)),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _bytes(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        asked, first = self.headers.get("Range", ""), 0
        if asked and self.of.ranges:
            first = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        for key, value in {**(headers or {}), "Content-Length": str(len(data) - first)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send(data[first:] if not self.of.spoiled else bytes(len(data) - first))

    def _send(self, data: bytes) -> None:
        cut = self.of.cut > 0 and len(data) > self.of.cut_after
        if cut:
            self.of.cut -= 1
            data, self.close_connection = data[: self.of.cut_after], True
        try:
            for start in range(0, len(data), CHUNK):
                self.wfile.write(data[start : start + CHUNK])
                if self.of.bytes_per_second:
                    time.sleep(CHUNK / self.of.bytes_per_second)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Not on stderr: `asked` has it."""


def _entry(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    entry = {"type": "file", "path": name, "size": len(data), "oid": blob}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def model_files(weights_bytes: int = 400_000, shards: int = 2, chat: bool = True) -> dict[str, bytes]:
    """A model as hubs hold them: shards, an index, a tokenizer, and what nobody needs."""
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    files = {name: _safetensors(name, weights_bytes) for name in names}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {name: name for name in names}}).encode()
    files["config.json"] = json.dumps({"model_type": "qwen2"}).encode()
    files["tokenizer.json"] = b'{"version": "1.0"}'
    files["tokenizer_config.json"] = json.dumps({"chat_template": "{{ messages }}"} if chat else {}).encode()
    unwanted = {"pytorch_model.bin": b"x" * 1000, "original/consolidated.00.pth": b"x", "README.md": b"# it",
                "original/params.json": b"{}", "consolidated.safetensors": b"x" * 500, "onnx/model.onnx": b"x"}  # fmt: skip
    return files | unwanted


def _safetensors(name: str, size: int) -> bytes:
    header = json.dumps({name: {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size // 4 * 4]}}).encode()
    seed = hashlib.sha256(name.encode()).digest()
    return len(header).to_bytes(8, "little") + header + (seed * (size // 32 + 1))[: size // 4 * 4]


def caches(place: Path) -> dict[str, str]:
    """The environment in which both hubs' tools keep everything below `place`, and know no token."""
    return {"HF_HOME": str(place / "hf"), "HF_HUB_CACHE": str(place / "hf" / "hub"),
            "MODELSCOPE_CACHE": str(place / "ms"), "MODELSCOPE_HOME": str(place / "ms-home")}  # fmt: skip
