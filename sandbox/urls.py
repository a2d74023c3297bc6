"""Which URLs a provider accepts."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Return whether this is one of this machine's own names and addresses."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_acceptable(url: object, *, allow_loopback_http: bool) -> bool:
    """Return whether this is an absolute HTTPS URL, or allowed loopback HTTP."""
    if not isinstance(url, str) or any(ord(char) <= 32 for char in url) or len(url) > 2048:
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return False
    if not host:
        return False
    if parts.scheme == "https":
        return True
    return allow_loopback_http and parts.scheme == "http" and is_loopback(host)
