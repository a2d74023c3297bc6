"""Delivers signed events and measures the answers: `python -m tests.benchmarks.generator` with options, one JSON out.

Closed loop: each connection sends its next delivery when the answer before it has come. With --rate deliveries leave
at fixed instants instead, and the time until the answer counts from the instant, not from the sending. One process,
plain sockets, epoll; everything is made and signed before the clock starts, so that little of the shared machine is
taken by what is no part of the comparison. `cpu_us` says how little.
"""

import argparse
import gc
import json
import select
import socket
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, Final

from tests.benchmarks import events

#: Latencies are counted by the microsecond; what takes longer than the last counts as that.
_LONGEST_US: Final = 4_000_000
#: Seconds that answers which are under way at the end may still take; they count as answers, not for the speed.
_DRAIN: Final = 20.0


class Answers:
    """Reads complete answers off connections, and counts them by status and by time taken."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.taken = array("I", bytes(4 * (_LONGEST_US + 1)))
        self._known: dict[bytes, tuple[int, int]] = {}  # by head: status, and length of the whole answer

    def read(self, received: bytes) -> int:
        """The status, where this is a whole answer, negative where the server closes after it; 0 where more comes."""
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return 0
        head = received[:end]
        status, length = self._known.get(head) or self._learn(head)
        return status if len(received) >= length else 0

    def _learn(self, head: bytes) -> tuple[int, int]:
        if len(self._known) > 1000:
            self._known.clear()
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        sign = -1 if b"connection: close" in head.lower() else 1
        found = sign * int(head[9:12]), len(head) + 4 + int(length or 0)
        self._known[head] = found
        return found

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share of the answers came."""
        left = share * self.taken_count
        for microseconds, count in enumerate(self.taken):
            left -= count
            if left <= 0 and count:
                return microseconds / 1000
        return 0.0

    @property
    def taken_count(self) -> int:
        """How many answers were timed."""
        return sum(self.statuses.values())


class Load:
    """Connections to one server."""

    def __init__(self, port: int, connections: int) -> None:
        self.answers = Answers()
        self.broken = 0  #: connections that the server closed on us, each with a delivery under way
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        self._since: dict[int, int] = {}  # by connection with a delivery under way: when it was due
        self._port = port
        for _ in range(connections):
            self._open()

    def _open(self) -> int:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return sock.fileno()

    def _opened_anew(self, fd: int) -> int:
        """Another connection in place of one that the server closes after its answer."""
        self._epoll.unregister(fd)
        self._sockets.pop(fd).close()
        return self._open()

    def closed(self, requests: Iterator[bytes], seconds: float) -> tuple[int, float]:
        """Deliver as fast as answers come; how many were answered within the time, and that time."""
        clock, since, answers = time.perf_counter_ns, self._since, self.answers
        recv = {fd: sock.recv for fd, sock in self._sockets.items()}
        send = {fd: sock.sendall for fd, sock in self._sockets.items()}
        taken, read, poll, partial = answers.taken, answers.read, self._epoll.poll, self._partial
        started = clock()
        until = started + int(seconds * 1e9)
        for (fd, sender), body in zip(send.items(), requests, strict=False):
            sender(body)
            since[fd] = clock()
        done = ok = 0
        now = clock()
        while now < until and since:
            for fd, _ in poll(0.1):
                received = recv[fd](65536)
                if partial or not received:
                    received = self._joined(fd, received)
                status = read(received)
                if not status:
                    partial[fd] = received
                    continue
                now = clock()
                taken[min((now - since[fd]) // 1000, _LONGEST_US)] += 1
                done += 1
                if status == 200:
                    ok += 1
                else:
                    answers.statuses[abs(status)] += 1
                if status < 0:
                    del since[fd]
                    fd = self._opened_anew(fd)
                    recv[fd], send[fd] = self._sockets[fd].recv, self._sockets[fd].sendall
                body = next(requests, None)
                if body is None:
                    until = now
                    since.pop(fd, None)
                    continue
                since[fd] = now
                send[fd](body)
            now = clock()
        answers.statuses[200] += ok
        lasted = (clock() - started) / 1e9
        self._drain()
        return done, lasted

    def paced(self, requests: Iterator[bytes], seconds: float, rate: float) -> tuple[int, float]:
        """Deliver `rate` a second, whether or not answers come; how many were answered in the time, and that time."""
        clock, free = time.perf_counter_ns, list(self._sockets)
        started = clock()
        due, gap, until = float(started), 1e9 / rate, started + int(seconds * 1e9)
        done = 0
        while (now := clock()) < until:
            while due <= now and free:
                body = next(requests, None)
                if body is None:
                    until = now
                    break
                fd = free.pop()
                self._since[fd] = int(due)
                self._sockets[fd].sendall(body)
                due += gap
            wait = max(0.0, (due - clock()) / 1e9) if free else 0.1
            for fd, _ in self._epoll.poll(min(wait, 0.1)):
                if found := self._answered(fd):
                    free.append(found)
                    done += 1
        lasted = (clock() - started) / 1e9
        self._drain()
        return done, lasted

    def _drain(self) -> None:
        give_up = time.monotonic() + _DRAIN
        while self._since and time.monotonic() < give_up:
            for fd, _ in self._epoll.poll(0.1):
                self._answered(fd)
        self.broken += len(self._since)
        self._since.clear()

    def _answered(self, fd: int) -> int:
        """The connection that is free now; 0 while more of the answer is to come."""
        received = self._joined(fd, self._sockets[fd].recv(65536))
        status = self.answers.read(received)
        if not status:
            self._partial[fd] = received
            return 0
        took = (time.perf_counter_ns() - self._since.pop(fd)) // 1000
        self.answers.taken[min(took, _LONGEST_US)] += 1
        self.answers.statuses[abs(status)] += 1
        return self._opened_anew(fd) if status < 0 else fd

    def _joined(self, fd: int, received: bytes) -> bytes:
        """What has come of the answer so far; a connection that was closed on us is given up."""
        if not received:
            self._epoll.unregister(fd)
            self.broken += self._since.pop(fd, None) is not None
        return self._partial.pop(fd, b"") + received

    def close(self) -> None:
        """Close every connection."""
        for sock in self._sockets.values():
            sock.close()


def made(number: int, dialect: str, path: str, seed: str | None = None) -> list[bytes]:
    """So many requests, signed now."""
    bodies = events.topups(number) if dialect == "stripe" else events.bodies(number, seed=seed)
    return [events.request(path, body, dialect) for body in bodies]


def again(load: Load, requests: Sequence[bytes]) -> Iterator[bytes]:
    """Deliver each once, then each again without end."""
    load.closed(iter(requests), 60.0)
    return chain.from_iterable(repeat(requests))


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """What was measured. `acknowledged` counts every 2xx, warm-up and drain included."""
    options = _parser().parse_args(arguments)
    requests = made(options.number, options.dialect, options.path, options.seed)
    warm_up = made(options.warm_up, options.dialect, options.path)
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles
    load = Load(options.port, options.connections)
    first: Counter[int] = Counter()
    if warm_up:
        load.closed(iter(warm_up), 60.0)
    deliveries: Iterator[bytes] = again(load, requests) if options.again else iter(requests)
    first, load.answers = load.answers.statuses, Answers()
    cpu = time.process_time()
    if options.rate:
        done, lasted = load.paced(deliveries, options.seconds, options.rate)
    else:
        done, lasted = load.closed(deliveries, options.seconds)
    cpu = time.process_time() - cpu
    load.close()
    answers, statuses = load.answers, first + load.answers.statuses
    return {
        "per_second": done / lasted,
        "seconds": lasted,
        "answers": {str(status): count for status, count in statuses.items() if count},
        "broken": load.broken,
        "acknowledged": sum(count for status, count in statuses.items() if 200 <= status < 300),
        "p50_ms": answers.percentile(0.5),
        "p99_ms": answers.percentile(0.99),
        "cpu_us": cpu / max(answers.taken_count, 1) * 1e6,
        "is_exhausted": next(deliveries, None) is None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="deliver signed events, and print what was measured as JSON")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default=f"/webhooks/{events.ACCOUNT}")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--number", type=int, default=50_000, help="deliveries made before the clock starts")
    parser.add_argument("--warm-up", type=int, default=0, help="deliveries before that, which are not measured")
    parser.add_argument("--rate", type=float, default=0.0, help="deliveries a second, instead of a closed loop")
    parser.add_argument("--again", action="store_true", help="each was delivered before the clock starts")
    parser.add_argument("--seed", help="of the ids: whoever knows it knows the payments beforehand")
    parser.add_argument("--dialect", choices=events.DIALECTS, default="stable_genius")
    return parser


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
