"""Effects to people by chat and paging services, through Apprise."""

import asyncio
import ipaddress
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.email_message import Letterhead, Notification, Tone, notification
from fulfilment.errors import InsecureSinkUrl, InvalidSink

EXTRA: Final = 'install receipted with the extra alarms: pip install "receipted[alarms]"'
TIMEOUT_S: Final = 15.0
_MIN_SECRET_CHARS: Final = 6  #: shorter parts of a URL are words such as "com" or "high"
#: What Apprise's plugins write of a refusal; of their other words nothing is repeated, since they may quote the URL.
_STATUS: Final = re.compile(r"\berror=([1-5]\d\d)\b", re.ASCII)
_FORBIDDEN_QUERY: Final = re.compile(r"[?&](?:verify|redirect)=", re.ASCII | re.IGNORECASE)


class AppriseSink:
    """Send each effect as a message to one Apprise URL, at least once.

    It is delivered only when the service has taken it.

    The service behind the URL must be spoken to by TLS; only with `allow_loopback`, and to this machine, is plain text
    spoken. Redirects are not followed and certificates are always verified. The URL is a secret as a whole: no error,
    log line or repr holds a part of it but its scheme. `timeout` is in seconds; an attempt that takes longer is counted
    as failed, and its thread ends by Apprise's own time-outs. Hosts are looked up by Apprise, and their addresses are
    not checked: the URL comes from the settings alone.

    Raises InvalidSink or InsecureSinkUrl at construction.
    """

    def __init__(
        self,
        name: str,
        url: str,
        head: Letterhead,
        *,
        allow_loopback: bool = False,
        timeout: float = TIMEOUT_S,
        threads: int = 4,
    ) -> None:
        if timeout <= 0:
            raise InvalidSink("a sink's timeout is above 0 seconds", param="timeout")
        require_service(url, allow_loopback=allow_loopback)
        self.name = name
        self._url = url
        self._scheme = urlsplit(url).scheme
        self._head = head
        self._timeout = timeout
        # Threads of its own: a service that hangs must not take those that the database calls need.
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"apprise-{name}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._scheme!r})"

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """Send one message; an outcome that is not known in time is a failure."""
        try:
            message = notification(owed, self._head)
        except ValueError:
            return Failed("the payload is none of an effect", is_final=True)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._send, message)
        except TimeoutError:
            return Failed(f"no answer within {self._timeout:g} s")

    def _send(self, message: Notification) -> Result:
        apprise = _library()
        service = _service(self._url)
        if service is None:
            return Failed("the URL is of no service that Apprise knows")
        lines: list[str] = []
        sender = apprise.Apprise(asset=service.asset)
        sender.add(service)
        taken = sender.notify(
            body=message.body,
            title=message.title,
            notify_type=_TYPES[message.tone],
            body_format="text",
            timeout=self._timeout,
            log_callback=lambda entry, _service: lines.append(entry.message),
            log_level=logging.WARNING,
        )
        if taken:
            return Delivered()
        status = next((int(found[1]) for each in lines if (found := _STATUS.search(each))), None)
        if status is None:
            return Failed(f"the service of {self._scheme}:// was not reached, or took no message")
        return Failed(f"the service of {self._scheme}:// answered {status}", http_status=status)

    async def aclose(self) -> None:
        """Begin no more messages; a repeat does nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


_TYPES: Final = {Tone.CALL: "warning", Tone.NEWS: "info", Tone.OVER: "success"}


def is_installed() -> bool:
    """Tell whether the extra with Apprise is installed."""
    return find_spec("apprise") is not None


def require_service(url: str, *, allow_loopback: bool = False) -> None:
    """Check an Apprise URL; nothing is sent.

    Raises InvalidSink for one that no service has, and InsecureSinkUrl where what is sent could be read on the way. No
    error holds a part of the URL.
    """
    if not is_installed():
        raise InvalidSink(f"the library of an apprise sink is missing: {EXTRA}", param="kind")
    parts = _split(url)
    service = _service(url)
    if parts is None or service is None:
        words = "Apprise knows no such URL; its list of services has the form of each, such as slack:// or pagerduty://"
        raise InvalidSink(words, param="url")
    if _FORBIDDEN_QUERY.search(url):
        raise InsecureSinkUrl("verify= and redirect= may not be set in it", param="url")
    is_plain = parts.scheme.lower() not in _schemes(service.secure_protocol)
    if is_plain and not (allow_loopback and _is_loopback(parts)):
        words = "the service is not spoken to by TLS; use the URL's form with TLS, such as jsons:// for json://"
        raise InsecureSinkUrl(words, param="url")


def secrets_in(url: str) -> set[str]:
    """Return what an Apprise URL hides, encoded and decoded. Never raises.

    Nearly any part may be a token.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return {url} if len(url) >= _MIN_SECRET_CHARS else set()
    tokens = re.split(r"[/?&=@:#,]", rest)
    return {value for token in tokens for value in (token, unquote(token)) if len(value) >= _MIN_SECRET_CHARS} | {
        f"{scheme}://{rest}"
    }


def _library() -> Any:
    """Import Apprise when it is first needed, which takes a while.

    Its log lines may quote URLs, and are dropped.
    """
    logger = logging.getLogger("apprise")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return import_module("apprise")


def _service(url: str) -> Any:
    """Build the service of the URL; None where there is none."""
    asset = _library().AppriseAsset(
        app_id="Receipted",
        app_desc="Receipted",
        app_url="",
        async_mode=False,
        http_redirects=False,
        interpret_emojis=False,
        interpret_escapes=False,
        secure_logging=True,
        storage_mode="memory",
    )
    return _library().Apprise.instantiate(url, asset=asset)


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _schemes(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
