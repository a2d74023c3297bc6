"""Style sheets and scripts, read once; browsers cache them by their content."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

PATH: Final = "/console/static/"

_FOLDER: Final = Path(__file__).with_name("static")
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    digest: str


class StaticFiles:
    """Serves the files of one folder by name, and nothing else."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._files: Mapping[str, _File] = {
            path.name: _File(content := path.read_bytes(), _TYPES[path.suffix], sha256(content).hexdigest()[:16])
            for path in sorted(folder.iterdir())
            if path.suffix in _TYPES
        }

    def url(self, name: str) -> str:
        """Return the URL of the file, which changes with its content. Raises KeyError."""
        return f"{PATH}{name}?v={self._files[name].digest}"

    async def serve(self, request: Request) -> Response:
        """Serve the file; cached for ever where the URL names its content."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        is_exact = request.query_params.get("v") == file.digest
        headers = {
            "etag": f'"{file.digest}"',
            "cache-control": "public, max-age=31536000, immutable" if is_exact else "no-cache",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)
