"""A local web server for the tests of downloads."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Site:
    """The files of the web server, its behaviour, and the requests that it got."""

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # path -> URL it redirects to
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range)
    authorizations: list[str | None] = field(default_factory=list)  # header of each request
    password: str | None = None  # the only Authorization that is accepted
    refuse: int | None = None  # the status of every answer
    ranges: bool = True
    etag: str | None = '"one"'
    stop_after: int | None = None  # bytes of the first answer that are sent before ...
    resume: threading.Event | None = None  # ... it waits for this event, or breaks off if there is none


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        site.asked.append((self.path, wanted))
        site.authorizations.append(self.headers.get("Authorization"))
        path = self.path.lstrip("/").partition("?")[0]
        if site.refuse or (site.password and site.authorizations[-1] != site.password):
            self.send_error(site.refuse or 401)
            return
        if path in site.moved:
            self.send_response(302)
            self.send_header("Location", site.moved[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = site.files.get(path)
        if body is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
        if self.headers.get("If-Range", site.etag) != site.etag:
            start = 0
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        first = site.stop_after
        site.stop_after = None
        if first is None:
            self.wfile.write(body[start:])
            return
        self.wfile.write(body[start : start + first])
        self.wfile.flush()
        if site.resume is None:
            self.close_connection = True
            return
        site.resume.wait(60)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Site]:
    """Run a server until the block ends; NO_PROXY must name 127.0.0.1."""
    offered = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"site": offered}))
    server.daemon_threads = True
    offered.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield offered
    finally:
        if offered.resume:
            offered.resume.set()
        server.shutdown()
        thread.join()
        server.server_close()
