"""A small hub on this machine: the few routes that huggingface_hub needs for a data set."""

import hashlib
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves ``files`` of one data set until it is closed.

    Attributes:
        url: for HF_ENDPOINT.
        requests: (method, path, range) of each request so far.
        stall_after: bytes of a file's body after which it waits until `go_on`; None never.
        refuse: an error code of the hub with which every request is answered.
        sha256: told of every file in place of its own.
    """

    def __init__(self, repo: str, files: dict[str, bytes], licence: str = "cc-by-4.0") -> None:
        self.repo, self.files, self.licence = repo, files, licence
        self.requests: list[tuple[str, str, str | None]] = []
        self.stall_after: int | None = None
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.refuse: str | None = None
        self.sha256: str | None = None
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home) -> dict[str, str]:
        """For a process that has no other hub."""
        kept = {key: value for key, value in os.environ.items() if not _HUB_VARIABLE.match(key)}
        return kept | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
        }


_HUB_VARIABLE = re.compile(r"HF_|HUGGING|.*_proxy$", re.IGNORECASE)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *arguments) -> None:
        pass

    def _answer(self, body: bool) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        wanted = self.headers.get("Range")
        hub.requests.append((self.command, self.path, wanted))
        if hub.refuse:
            self._send(401, json.dumps({"error": "no"}).encode(), {"X-Error-Code": hub.refuse})
        elif path.startswith(f"/api/datasets/{hub.repo}"):
            self._json(
                {
                    "id": hub.repo,
                    "sha": REVISION,
                    "cardData": {"license": hub.licence},
                    "siblings": [
                        {
                            "rfilename": name,
                            "size": len(data),
                            "blobId": _etag(data),
                            "lfs": {
                                "size": len(data),
                                "pointerSize": 130,
                                "sha256": hub.sha256 or hashlib.sha256(data).hexdigest(),
                            },
                        }
                        for name, data in hub.files.items()
                    ],
                }
            )
        elif path.startswith(f"/datasets/{hub.repo}/resolve/{REVISION}/"):
            # The hub sends large files' readers elsewhere.
            self._send(302, b"", {"Location": "/cdn/" + path.split(f"{REVISION}/", 1)[1]})
        elif path.startswith("/cdn/"):
            self._file(path.removeprefix("/cdn/"), wanted, body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str, wanted: str | None, body: bool) -> None:
        data = self.hub.files[name]
        start = int(re.fullmatch(r"bytes=(\d+)-\d*", wanted)[1]) if wanted else 0
        headers = {
            "ETag": f'"{_etag(data)}"',
            "X-Repo-Commit": REVISION,
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers, body)

    def _json(self, content) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict, body: bool = True) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        hub, stall = self.hub, self.hub.stall_after
        if stall is None or stall >= len(data):
            self.wfile.write(data)
            return
        self.wfile.write(data[:stall])
        self.wfile.flush()
        hub.stalled.set()
        hub.go_on.wait(60)
        self.close_connection = True


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
