"""A bucket as S3 serves one, in this process: enough of it for listing, reading parts of objects and writing them."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

TIME = "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
LISTED = "<Contents><Key>{}</Key><Size>{}</Size>" + TIME + "<ETag>&quot;e&quot;</ETag></Contents>"


class Bucket(BaseHTTPRequestHandler):
    """One bucket of any name."""

    objects: dict[str, bytes] = {}  # noqa: RUF012  shared by all requests, as a server's disk is
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """With a body unless it is asked for the head alone."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body)), "ETag": '"e"'} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def asked(self) -> tuple[str, dict[str, list[str]]]:
        """The key of the object, and the query."""
        address = urlsplit(self.path)
        return unquote(address.path).lstrip("/").partition("/")[2], parse_qs(address.query, keep_blank_values=True)

    def body(self) -> bytes:
        """What was sent: in the chunks of HTTP, and in Amazon's own in these, as the client likes."""
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            raw += self.rfile.read(size)
            self.rfile.readline()
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.rfile.readline()
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return raw
        out = b""
        while (match := re.match(rb"([0-9a-fA-F]+)[^\r]*\r\n", raw)) and (size := int(match[1], 16)):
            out, raw = out + raw[match.end() : match.end() + size], raw[match.end() + size + 2 :]
        return out

    def do_GET(self) -> None:
        key, query = self.asked()
        if "list-type" in query:
            self.answer(200, self.listing(query).encode())
        elif key not in self.objects:
            self.answer(404 if key else 200, b"<Error><Code>NoSuchKey</Code></Error>" if key else b"")
        else:
            content, span = self.objects[key], re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            last = {"Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
            if span is None:
                self.answer(200, content, **last)
            else:
                end = min(int(span[2] or len(content)), len(content) - 1)
                self.answer(206, content[int(span[1]) : end + 1], Content_Range=f"bytes {span[1]}-{end}/{len(content)}", **last)

    do_HEAD = do_GET  # noqa: N815

    def listing(self, query: dict[str, list[str]]) -> str:
        """Objects and folders below a prefix."""
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        keys, folders = [], {}
        for key in sorted(self.objects):
            rest = key.removeprefix(prefix)
            if key.startswith(prefix) and delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
            elif key.startswith(prefix):
                keys.append(LISTED.format(escape(key), len(self.objects[key])))
        below = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        count = f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{count}{''.join(keys)}{below}</ListBucketResult>"

    def do_PUT(self) -> None:
        key, query = self.asked()
        name = f"{key}?{query['partNumber'][0]}" if "partNumber" in query else key
        self.objects[name] = self.body()
        self.answer(200)

    def do_POST(self) -> None:
        key, query = self.asked()
        self.body()
        if "delete" in query:
            self.answer(200, b"<DeleteResult/>")
        elif "uploads" in query:
            self.answer(200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        else:
            parts = sorted(
                (name for name in self.objects if name.startswith(f"{key}?")), key=lambda name: int(name.rpartition("?")[2])
            )
            self.objects[key] = b"".join(self.objects.pop(name) for name in parts)
            self.answer(200, b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")

    def do_DELETE(self) -> None:
        self.objects.pop(self.asked()[0], None)
        self.answer(204)


@contextmanager
def serving() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address and its objects by key."""
    Bucket.objects.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Bucket.objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
