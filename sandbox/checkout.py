"""Hosted checkout of every provider, in plain HTML."""

from html import escape
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.provider import Provider
from sandbox.world import IllegalMove, Resource, World

TITLES = {
    "alternative_payments": "Alternative Payments",
    "stable_genius": "Stable Genius",
    "payfield": "Payfield",
    "payfield_old": "Payfield (old dialect)",
    "banked": "Banked",
}
LABELS = {"pay": "Pay", "decline": "Decline", "cancel": "Cancel", "expire": "Let it expire"}

STYLE = """
:root{color-scheme:light dark;--bg:#f4f5f7;--card:#fff;--ink:#16202c;--soft:#5a6675;--line:#d9dee5;--go:#17653a}
@media(prefers-color-scheme:dark){:root{--bg:#10151b;--card:#1a212a;--ink:#e8edf3;--soft:#a3afbd;--line:#313b47;
--go:#2f8a56}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:30rem;margin:0 auto;padding:1.5rem 1rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1.25rem}
h1{font-size:1rem;margin:0 0 1rem;color:var(--soft);font-weight:600}
.amount{font-size:2.1rem;font-weight:700;margin:0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:auto 1fr;gap:.35rem 1rem;margin:1rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere;text-align:right}
form{display:grid;gap:.6rem;margin:0}
button{font:inherit;font-weight:600;padding:.75rem;border-radius:10px;border:1px solid var(--line);
background:transparent;color:inherit;cursor:pointer}
button.pay{background:var(--go);border-color:var(--go);color:#fff}
button:focus-visible,a:focus-visible{outline:3px solid #5b9dff;outline-offset:2px}
.note{color:var(--soft);font-size:.9rem;margin:1rem 0 0}a{color:inherit}
li{margin:.4rem 0;overflow-wrap:anywhere}
"""


def money(resource: Resource) -> str:
    """Format the amount with its currency."""
    return f"{resource.amount_minor // 100:,}.{resource.amount_minor % 100:02d} {resource.currency}"


def page(title: str, inner: str, status: int = 200) -> HTMLResponse:
    """Build a whole page around `inner`, which must be escaped already.

    It runs no script and loads nothing.
    """
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><main><div class="card">{inner}</div></main></body></html>'
    )
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(html, status, headers)


class Checkout:
    """Shows what is to be paid and does what the payer decides."""

    def __init__(self, world: World, providers: dict[str, Provider]) -> None:
        self._world, self._providers = world, providers

    def routes(self) -> list[Route]:
        """Return the routes of the list and of each payment's page."""
        return [
            Route("/checkout", self.index, methods=["GET"]),
            Route("/checkout/{provider}/{id}", self.show, methods=["GET"]),
            Route("/checkout/{provider}/{id}", self.decide, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        """Show the newest fifty payments that can still be acted on."""
        rows = [
            f'<li><a href="/checkout/{item.provider}/{quote(item.provider_id, safe="")}">{escape(money(item))}</a> '
            f"{escape(TITLES[item.provider])}, {escape(item.reference or item.ref)}</li>"
            for item in reversed(self._world.all())
            if self._providers[item.provider].payer_actions(item)
        ]
        listed = "".join(rows[:50]) or "<li>Nothing is waiting for a payer.</li>"
        return page("Open payments", f"<h1>Open payments ({len(rows)})</h1><ul>{listed}</ul>")

    async def show(self, request: Request) -> Response:
        """Show the payment and its buttons."""
        resource = self._found(request)
        if resource is None:
            return page("Not found", "<h1>There is no such payment here.</h1>", 404)
        return self._card(resource)

    async def decide(self, request: Request) -> Response:
        """Do the action, then send the browser to the merchant, or back here.

        Back here where the merchant gave no address.
        """
        resource = self._found(request)
        if resource is None:
            return page("Not found", "<h1>There is no such payment here.</h1>", 404)
        provider = self._providers[resource.provider]
        async with request.form() as form:
            action = str(form.get("action", ""))
        if action not in provider.payer_actions(resource):
            return self._card(resource, "That is no longer possible.", 409)
        try:
            provider.act(resource, action, {})
        except IllegalMove as error:
            return self._card(resource, str(error), 409)
        return RedirectResponse(provider.return_url(resource) or request.url.path, 303)

    def _found(self, request: Request) -> Resource | None:
        return self._world.find_by_provider_id(request.path_params["provider"], request.path_params["id"])

    def _card(self, resource: Resource, problem: str = "", status: int = 200) -> Response:
        provider = self._providers[resource.provider]
        actions = provider.payer_actions(resource)
        buttons = "".join(
            f'<button class="{action}" name="action" value="{action}">{LABELS[action]}</button>' for action in actions
        )
        merchant = str(resource.data.get("merchant_id") or resource.data.get("payee_name") or "Sandbox merchant")
        facts = {
            "Merchant": merchant,
            "Reference": resource.reference or "none",
            "State": resource.state,
            "Payment": resource.ref,
        }
        listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
        note = problem or ("" if actions else "Nothing more can be done here.")
        url = provider.return_url(resource)
        back = f'<p class="note"><a href="{escape(url)}">Back to the shop</a></p>' if url and not actions else ""
        inner = (
            f"<h1>{escape(TITLES[resource.provider])} sandbox checkout</h1>"
            f'<p class="amount">{escape(money(resource))}</p><dl>{listed}</dl>'
            f'<form method="post">{buttons}</form>'
            f"{f'<p class=note role=status>{escape(note)}</p>' if note else ''}{back}"
        )
        return page(f"Pay {money(resource)}", inner, status)
