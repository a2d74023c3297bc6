"""Security headers of every answer, and checks of every form that is sent."""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, ImmutableMultiDict, MutableHeaders

from console.deps import ConsoleDeps
from console.errors import InvalidForm, NotFromHere

#: Nothing from other origins, nothing inline, no framing.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

_SECURITY_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer a browser would not tell where a form was sent from
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
_HSTS: Final = "max-age=31536000"

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

#: Fields of one form.
_MAX_FORM_FIELDS: Final = 200


def add_security_headers(headers: MutableHeaders, request_id: str, *, is_development: bool) -> None:
    """Add the headers that the answer does not set itself."""
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if not is_development:
        headers.setdefault("strict-transport-security", _HSTS)
    headers["x-request-id"] = request_id


def check_origin(deps: ConsoleDeps, headers: Headers) -> None:
    """Check that a page of this host sent the request; raises NotFromHere.

    Browsers say so themselves and no page can make them lie: by Origin, and by Sec-Fetch-Site over HTTPS.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        raise NotFromHere
    if site is not None and site != "same-origin":
        raise NotFromHere
    if origin is not None and not _is_ours(deps, origin, headers.get("host", "")):
        raise NotFromHere


def _is_ours(deps: ConsoleDeps, origin: str, host: str) -> bool:
    """Compare the origin with the public URL, and with the request's host over HTTPS."""
    if origin == deps.origin:
        return True
    try:
        found = urlsplit(origin)
    except ValueError:  # brackets without an address between them, and their like
        return False
    return found.netloc.lower() == host.lower() and (found.scheme == "https" or deps.is_development)


def parse_form(body: bytes, headers: Headers) -> ImmutableMultiDict[str, str]:
    """Parse a form as browsers send it; empty for other content. Raises InvalidForm."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return ImmutableMultiDict()
    try:
        return ImmutableMultiDict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS)
        )
    except ValueError:
        raise InvalidForm("the form could not be read") from None


def local_path(path: str, otherwise: str = "/console/") -> str:
    """Return the path if it leads to a page of the console: no open redirect."""
    is_here = path == "/console" or path.startswith("/console/")
    is_plain = path.isascii() and path.isprintable() and "\\" not in path and " " not in path
    return path if is_here and is_plain else otherwise
