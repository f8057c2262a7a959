"""A real nginx as the gateways that people open the page through. One process, one port a gateway."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
# An answer to a click takes less, even on a busy machine; a stream never.
CUT_S = 6.0

CONFIG = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; worker_shutdown_timeout 3s;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log; proxy_http_version 1.1; client_max_body_size 20m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{servers}
}}
"""
# What stands in `server {{ … }}`; the Host header that arrives is nginx's own unless said otherwise.
GATEWAYS = {
    "direct": "location / {{ proxy_pass http://127.0.0.1:{page}; }}",
    # As jupyter-server-proxy does behind a hub: the Host header is the hub's.
    "stripping": "location /a/b/ {{ proxy_pass http://127.0.0.1:{page}/; proxy_set_header X-Forwarded-Prefix /a/b; "
    "proxy_set_header Host hub.example.org; }}",
    "stripping_in_silence": "location /a/b/ {{ proxy_pass http://127.0.0.1:{page}/; }}",
    "leaving": "location /a/b {{ proxy_pass http://127.0.0.1:{page}; proxy_set_header X-Forwarded-Prefix /a/b; "
    "proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto http; }}",
    "leaving_in_silence": "location /a/b {{ proxy_pass http://127.0.0.1:{page}; }}",
    "https": "ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; location /a/b/ {{ "
    "proxy_pass http://127.0.0.1:{page}/; proxy_set_header X-Forwarded-Prefix /a/b; proxy_set_header Host $host; "
    "proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto https; }}",
    # Compressing, nginx passes nothing on until it has enough or all.
    "buffering": "location / {{ proxy_pass http://127.0.0.1:{page}; proxy_buffering on; "
    "proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 1m; proxy_buffers 8 1m; proxy_busy_buffers_size 2m; "
    "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; proxy_read_timeout 10s; }}",
}


@dataclass
class Gateway:
    process: "subprocess.Popen[bytes]"
    address: str
    folder: Path

    def requests(self) -> str:
        return (self.folder / "access.log").read_text()

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Meanwhile every connection is cut after CUT_S at most, whatever is going on in it."""
        over = threading.Event()

        def cut() -> None:
            while not over.wait(CUT_S - 3):
                self.process.send_signal(signal.SIGHUP)  # new workers; the old ones close all within three seconds

        thread = threading.Thread(target=cut, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def gateway(kind: str, page: int, folder: Path) -> Iterator[Gateway]:
    """`page`: the port that the page listens on."""
    assert NGINX
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    secure = kind == "https"
    if secure:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
             "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)  # fmt: skip
    inside = GATEWAYS[kind].format(page=page, folder=folder)
    servers = f"  server {{ listen 127.0.0.1:{port}{' ssl' if secure else ''}; {inside} }}"
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, servers=servers))
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        _await(port, process, folder)
        yield Gateway(process, f"{'https' if secure else 'http'}://127.0.0.1:{port}", folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _await(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    error = folder / "error.log"
    raise AssertionError(f"nginx did not start: {error.read_text() if error.exists() else ''}")
