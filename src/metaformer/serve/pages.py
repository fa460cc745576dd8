"""The page at `/` and its files, which lie in page/: no build step, no address outside the service, nothing inline."""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request, Response

TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked about each time: names stay the same from version to version
}


@dataclass(frozen=True)
class File:
    """One of the page's files, as it is answered."""

    text: bytes
    kind: str
    tag: str

    async def __call__(self, request: Request) -> Response:
        """The file; for a browser that has it already, that it has (304)."""
        headers = HEADERS | {"ETag": self.tag}
        if self.tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.text, headers=headers, media_type=self.kind)


def page_routes() -> APIRouter:
    """Serves `/` and `/page/NAME`, and nothing that is not in the folder. The files are read once, here."""
    router = APIRouter(include_in_schema=False)
    for name, file in page_files().items():
        path = "/" if name == "index.html" else f"/page/{name}"
        router.add_api_route(path, file.__call__, methods=["GET", "HEAD"])
    return router


def page_files() -> dict[str, File]:
    """By name."""
    texts = {file.name: file.read_bytes() for file in (files("metaformer.serve") / "page").iterdir() if file.is_file()}
    return {
        name: File(text, TYPES[name.rpartition(".")[2]], f'"{sha256(text).hexdigest()[:20]}"')
        for name, text in sorted(texts.items())
        if name.rpartition(".")[2] in TYPES
    }
