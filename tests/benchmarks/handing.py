"""Hand over what is owed: `python -m tests.benchmarks.handing URL SHOP SECONDS` as `receipted worker` does."""

import asyncio
import json
import sys
import time
from typing import Final

from receipted import logs
from receipted.app import working
from receipted.garbage import collect_seldom
from receipted.wiring import Service
from tests.benchmarks.config import settings

KEY: Final = "whsec_" + "YmVuY2htYXJrLWtleS1vZi1lbm91Z2gtYnl0ZXMtMDE="


def service_to(url: str, shop: str) -> Service:
    """The service with a shop behind HTTP, and the rest as an operator has it who says no more."""
    sink = {"name": "shop", "kind": "http", "url": shop, "secrets": [f"plain:{KEY}"]}
    return Service(settings(url, sinks=[sink]))


async def hand_over(url: str, shop: str, seconds: float) -> dict[str, float]:
    """What was delivered until nothing is left to begin, or for so long."""
    service = service_to(url, shop)
    async with working(service):
        collect_seldom()
        (dispatcher,) = service.parts.dispatchers
        began, cpu = time.monotonic(), time.process_time()
        last, ended, idle_at = 0, began, began
        while time.monotonic() - began < seconds:
            await asyncio.sleep(0.02)
            done = sum(times for (_, outcome), times in dispatcher.attempts.items() if outcome == "delivered")
            now = time.monotonic()
            if done > last:
                last, ended, idle_at = done, now, now
            elif now - idle_at > 5 and last:
                break
    return {"delivered": last, "seconds": ended - began, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    logs.configure("info", "json")
    found = asyncio.run(hand_over(sys.argv[1], sys.argv[2], float(sys.argv[3])))
    print(json.dumps(found), flush=True)
