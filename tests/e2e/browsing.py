"""A real browser that notices what people would not: faults of scripts, broken policies, requests to elsewhere."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from storage.tables_support import ConsolePerson
from tests.support.console import PASSWORD

#: A violation is told as an error of the page, whatever the browser itself writes of it.
_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", event =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""

#: What has the focus: its words, and what is wrong with how that is shown.
_FOCUS = """
() => {
  const at = document.activeElement;
  if (!at || at === document.body) return {words: "", wrong: ""};
  const style = getComputedStyle(at), box = at.getBoundingClientRect();
  const labels = at.labels ? [...at.labels].map(each => each.textContent.trim()) : [];
  const words = [at.getAttribute("aria-label"), ...labels, at.textContent.trim(), at.name].find(each => each) || "";
  const is_inside = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  const wrong = style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2 ? "has no outline"
    : is_inside ? "" : "is outside of the window";
  return {words: words.replace(/\\s+/g, " "), wrong};
}
"""


#: Elements that the page hides by the attribute and its style shows all the same.
_SHOWN_ALTHOUGH_HIDDEN = """
() => [...document.querySelectorAll("[hidden]")].filter(each => each.getClientRects().length)
  .map(each => each.outerHTML.slice(0, 120))
"""

#: What offers an effect and has none: a button of no form that changes nothing when it is pressed, one whose form has
#: no address, a fold with nothing in it, a link to a part that the page does not have.
_WITHOUT_EFFECT = """
async () => {
  const seen = () => JSON.stringify([document.body.innerText, String(getSelection()),
    [...document.querySelectorAll("main *")].map(each => { const at = each.getBoundingClientRect();
      return [at.x, at.y, at.width, at.height].map(Math.round); })]);
  const changes = async (press) => {
    const before = seen(), until = performance.now() + 2000;
    press();
    while (performance.now() < until) {
      if (seen() !== before) return true;
      await new Promise(next => requestAnimationFrame(next));
    }
    return false;
  };
  const dead = [];
  for (const each of document.querySelectorAll("button, summary, a")) {
    if (!each.getClientRects().length) continue;
    const words = `${each.textContent.trim()} (${each.outerHTML.slice(0, 80)})`;
    if (each.matches("a")) {
      const to = each.getAttribute("href");
      if (!to || (to.startsWith("#") && !document.getElementById(to.slice(1)))) dead.push(words);
    } else if (each.matches("summary")) {
      if (each.parentElement.children.length < 2) dead.push(words);
    } else if (each.type === "submit") {
      if (!each.form || !each.form.getAttribute("action")) dead.push(words);
    } else if (!each.disabled) {
      if (!(await changes(() => each.click()))) dead.push(words);
      if (each.hasAttribute("aria-expanded")) each.click();
    }
  }
  return dead;
}
"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watch:
    """What went wrong on any page of the contexts that it watches."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.faults: list[str] = []
        self.refused: set[int] = set()  #: answers that a test means to get

    @contextmanager
    def expecting(self, status: int) -> Iterator[None]:
        """Such an answer is meant within the block."""
        self.refused.add(status)
        yield
        self.refused.discard(status)

    def over(self, context: BrowserContext) -> BrowserContext:
        """The context, watched from now on."""
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.faults.append(f"script: {error.error}"))
        context.on("request", self._asked)
        return context

    def _said(self, message: ConsoleMessage) -> None:
        is_meant = any(f"status of {status} " in message.text for status in self.refused)
        if message.type in ("error", "warning") and not is_meant:
            self.faults.append(f"{message.page.url if message.page else '?'}: {message.text}")

    def _asked(self, request: Request) -> None:
        found = urlsplit(request.url)
        if found.scheme != "data" and f"{found.scheme}://{found.netloc}" != self._origin:
            self.faults.append(f"request to {request.url}")


def log_in(page: Page, base_url: str, person: ConsolePerson, path: str = "/console/") -> Page:
    """The page at the path, after its person typed name and password."""
    page.goto(f"{base_url}{path}")
    enter(page, person)
    page.wait_for_url(f"{base_url}{path}")
    return page


def enter(page: Page, person: ConsolePerson) -> None:
    """Name and password are typed into the log-in that the page shows, and sent."""
    page.get_by_label("Name").fill(person.name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def focused(page: Page) -> str:
    """The words of what has the focus; AssertionError where nobody can see that it has."""
    found: dict[str, Any] = page.evaluate(_FOCUS)
    assert not found["wrong"], f"{found['words']!r} {found['wrong']} at {page.url}"
    return str(found["words"])


def tab_to(page: Page, words: str, *, most: int = 150) -> None:
    """Tab is pressed until what begins with the words has the focus, which can be seen all the way."""
    passed: list[str] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        passed.append(focused(page))
        if passed[-1].startswith(words):
            return
    raise AssertionError(f"no Tab leads to {words!r}: {passed}")


def overhang(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    wide: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide


def shown_although_hidden(page: Page) -> list[str]:
    """Elements of the page that `hidden` does not hide."""
    found: list[str] = page.evaluate(_SHOWN_ALTHOUGH_HIDDEN)
    return found


def without_effect(page: Page) -> list[str]:
    """Buttons, folds and links of the page that do nothing; buttons that only the page answers are pressed."""
    found: list[str] = page.evaluate(_WITHOUT_EFFECT)
    return found


@contextmanager
def another_site(content: str) -> Iterator[str]:
    """The URL of a page at another host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_args: object) -> None:
            """Nothing is written."""

    server = ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.2:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
