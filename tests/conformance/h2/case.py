"""What a case is, and the kinds of cases that the tables of the chapters are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hyperframe.frame import Frame, HeadersFrame

from rig import Fact, Rig
from wire import WITHIN_S, Code, Connection, Failed, Header, Stream, name_of

# Stands for the path of the case, which no other request has.
PATH = "{path}"
GET: list[Header] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "edge.test"),
    (":path", PATH),
]
POST: list[Header] = [(":method", "POST"), *GET[1:]]
# hyper's h2 calls every field block that it cannot decode, and a window in SETTINGS that is too large, PROTOCOL_ERROR; RFC 9113 wants
# the finer codes. Peers do the same on either: the connection is over.
FIELD_BLOCK_ERROR = (Code.COMPRESSION_ERROR, Code.PROTOCOL_ERROR)
WINDOW_SETTING_ERROR = (Code.FLOW_CONTROL_ERROR, Code.PROTOCOL_ERROR)
# What of the upstream's facts means that somebody's request came through, or what it took for one.
_ARRIVALS = ("head", "upgrade", "connect", "broken")


class Trial:
    """One case while it runs."""

    def __init__(self, rig: Rig, number: int) -> None:
        self.rig = rig
        self.path = f"/h2-{number}"
        self._mark = rig.upstream.mark()
        self._open: list[Connection] = []
        self._barriers = 0

    def connect(self, **options: Any) -> Connection:
        """A new connection, closed with the case."""
        connection = self.rig.connect(**options)
        self._open.append(connection)
        return connection

    def fill(self, fields: Iterable[Header]) -> list[Header]:
        """Fields with the path of this case."""
        return [(name, _fill(value, self.path)) for name, value in fields]

    def get(self, query: str = "", *extra: Header) -> list[Header]:
        """A GET of this case's path."""
        return self.fill([*GET[:3], (":path", PATH + query), *extra])

    def post(self, query: str = "", *extra: Header) -> list[Header]:
        """A POST to this case's path."""
        return self.fill([*POST[:3], (":path", PATH + query), *extra])

    def serves(self, connection: Connection, query: str = "") -> Stream:
        """The connection still serves requests."""
        stream = connection.response(connection.request(self.get(query)))
        if stream.status != 200:
            raise Failed(f"expected 200 on the same connection; {stream}")
        return stream

    def arrived(self, wanted: Callable[[Fact], bool], what: str) -> Fact:
        """Waits for something that the upstream sees."""
        return self.rig.upstream.until(wanted, what, self._mark)

    def request_seen(self, path: str | None = None) -> Fact:
        """The whole request to this case's path, as the upstream saw it."""
        wanted = path or self.path
        return self.arrived(
            lambda fact: fact["kind"] == "request" and fact["url"].startswith(wanted), "a request"
        )

    def arrivals(self) -> list[Fact]:
        """Everything that came through to the upstream, or that it could not read, since the case began."""
        self._barriers += 1
        end = f"/barrier{self.path}-{self._barriers}"
        with self.rig.connect() as connection:
            connection.response(connection.request(self.fill([*GET[:3], (":path", end)])))
        self.arrived(lambda fact: fact["kind"] == "request" and fact["url"] == end, "the barrier")
        facts = self.rig.upstream.since(self._mark)
        return [
            fact
            for fact in facts
            if fact["kind"] in _ARRIVALS and not str(fact.get("url", "")).startswith("/barrier")
        ]

    def nothing_arrived(self) -> None:
        """Fails when anything came through."""
        arrivals = self.arrivals()
        if arrivals:
            raise Failed(f"expected nothing at the upstream; it saw {arrivals}")

    def facts(self) -> list[Fact]:
        """Everything that the upstream said since the case began."""
        return self.rig.upstream.since(self._mark)

    def close(self) -> None:
        """Closes what the case left open."""
        for connection in self._open:
            connection.__exit__()


def _fill(value: str | bytes, path: str) -> str | bytes:
    if isinstance(value, bytes):
        return value.replace(PATH.encode(), path.encode())
    return value.replace(PATH, path)


@dataclass(frozen=True)
class Case:
    """One line of the report."""

    section: str
    name: str
    body: Callable[[Trial], None]

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


Part: TypeAlias = Frame | bytes | Callable[[Connection, Trial], Frame]


def open_stream(number: int, fields: Iterable[Header] = POST, *flags: str) -> Part:
    """HEADERS of a request; without flags its body is still to come."""
    listed = list(fields)

    def build(connection: Connection, trial: Trial) -> Frame:
        connection.skip_to(number)
        return HeadersFrame(number, connection.block(trial.fill(listed)), flags=["END_HEADERS", *flags])

    return build


def whole_request(number: int) -> Part:
    """A GET that is complete."""
    return open_stream(number, GET, "END_STREAM")


def send_parts(connection: Connection, trial: Trial, parts: Iterable[Part]) -> None:
    """Sends frames in their order, in one write."""
    built = [part if isinstance(part, (bytes, Frame)) else part(connection, trial) for part in parts]
    connection.send(*built)


def must_die(connection: Connection, *codes: Code) -> None:
    """A connection error: GOAWAY with one of these codes, and the connection is closed (9113-5.4.1)."""
    connection.wait_end()
    if connection.goaway is None or connection.goaway.error_code not in codes:
        raise Failed(f"expected GOAWAY {' or '.join(code.name for code in codes)}; {connection.farewell()}")


def must_reset(connection: Connection, number: int, *codes: Code) -> None:
    """A stream error, or the same as a connection error, which is a server's choice (9113-5.4.1)."""
    stream = connection.stream(number)
    connection.wait(lambda: stream.is_over or connection.goaway is not None, f"RST_STREAM on {number}")
    if connection.goaway is not None and connection.goaway.error_code in codes:
        return
    if stream.reset not in codes:
        seen = f"{stream}; {connection.farewell()}" if connection.goaway else str(stream)
        raise Failed(f"expected RST_STREAM {' or '.join(code.name for code in codes)}; {seen}")


def breaks(
    section: str,
    name: str,
    codes: Code | tuple[Code, ...],
    *parts: Part,
    settings: Mapping[int, int] | None = None,
) -> Case:
    """These frames are a connection error."""
    wanted = codes if isinstance(codes, tuple) else (codes,)

    def body(trial: Trial) -> None:
        connection = trial.connect(settings=settings)
        connection.wait(lambda: connection.settings is not None, "SETTINGS")
        send_parts(connection, trial, parts)
        must_die(connection, *wanted)

    return Case(section, f"{name} is {' or '.join(code.name for code in wanted)}", body)


def resets(section: str, name: str, codes: Code | tuple[Code, ...], number: int, *parts: Part) -> Case:
    """These frames are an error of one stream."""
    wanted = codes if isinstance(codes, tuple) else (codes,)

    def body(trial: Trial) -> None:
        connection = trial.connect()
        send_parts(connection, trial, parts)
        must_reset(connection, number, *wanted)
        if connection.goaway is None:
            trial.serves(connection)

    return Case(section, f"{name} is {' or '.join(code.name for code in wanted)} of the stream", body)


def ignores(section: str, name: str, *parts: Part, answered: int | None = None) -> Case:
    """These frames change nothing: the request on stream `answered` is, and so is one after it."""

    def body(trial: Trial) -> None:
        connection = trial.connect()
        send_parts(connection, trial, parts)
        connection.ping()
        if answered is not None:
            stream = connection.response(answered)
            if stream.status != 200:
                raise Failed(f"expected 200 on stream {answered}; {stream}")
        trial.serves(connection)

    return Case(section, name, body)


def refuses(
    section: str,
    name: str,
    fields: Iterable[Header],
    *,
    data: bytes | None = None,
    statuses: tuple[int, ...] = (400,),
    codes: tuple[Code, ...] = (Code.PROTOCOL_ERROR,),
) -> Case:
    """A malformed request: a stream error or one of these statuses, the upstream sees nothing, the connection goes on."""
    listed = list(fields)

    def body(trial: Trial) -> None:
        connection = trial.connect()
        number = connection.request(trial.fill(listed), data)
        must_refuse(trial, connection, number, statuses, codes)

    return Case(section, name, body)


def unreadable(section: str, name: str, fields: Iterable[Header], *, data: bytes | None = None) -> Case:
    """A field that no HTTP message can have. hyper's h2 ends the connection for it, which 9113-5.4.1 leaves to a server; alone the
    stream may end as well. The upstream sees nothing either way."""
    listed = list(fields)

    def body(trial: Trial) -> None:
        connection = trial.connect()
        stream = connection.stream(connection.request(trial.fill(listed), data))
        connection.wait(lambda: stream.is_over or connection.goaway is not None, "a refusal")
        if connection.goaway is not None:
            must_die(connection, *FIELD_BLOCK_ERROR)
        elif stream.reset != Code.PROTOCOL_ERROR and stream.status not in (400, 501):
            raise Failed(f"expected a refusal; {stream}")
        trial.nothing_arrived()

    return Case(section, name, body)


def must_refuse(
    trial: Trial,
    connection: Connection,
    number: int,
    statuses: tuple[int, ...] = (400,),
    codes: tuple[Code, ...] = (Code.PROTOCOL_ERROR,),
) -> None:
    """A stream was refused, alone."""
    stream = connection.response(number)
    if stream.status is not None:
        if stream.status not in statuses:
            raise Failed(f"expected status {statuses} or a stream error; {stream}")
    elif stream.reset not in codes:
        raise Failed(f"expected {statuses} or RST_STREAM {[code.name for code in codes]}; {stream}")
    trial.nothing_arrived()
    trial.serves(connection)


def accepts(
    section: str,
    name: str,
    fields: Iterable[Header],
    check: Callable[[Stream, Fact], None] = lambda _stream, _seen: None,
    *,
    data: bytes | None = None,
    status: int = 200,
) -> Case:
    """A request that is answered; `check` gets the response and the request as the upstream saw it."""
    listed = list(fields)

    def body(trial: Trial) -> None:
        connection = trial.connect()
        stream = connection.response(connection.request(trial.fill(listed), data))
        if stream.status != status or stream.reset is not None:
            raise Failed(f"expected {status}; {stream}")
        check(stream, trial.request_seen())

    return Case(section, name, body)


def expect(what: str, seen: object, wanted: object) -> None:
    """Fails when two values differ."""
    if seen != wanted:
        raise Failed(f"{what}: expected {_brief(wanted)}, got {_brief(seen)}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def values(fact: Fact, name: str) -> list[str]:
    """The values of a header as the upstream saw them."""
    pairs = zip(fact["headers"][::2], fact["headers"][1::2], strict=True)
    return [value for key, value in pairs if key.lower() == name]


__all__ = [
    "FIELD_BLOCK_ERROR",
    "GET",
    "PATH",
    "POST",
    "WINDOW_SETTING_ERROR",
    "WITHIN_S",
    "Case",
    "Trial",
    "accepts",
    "breaks",
    "expect",
    "ignores",
    "must_die",
    "must_refuse",
    "must_reset",
    "name_of",
    "open_stream",
    "refuses",
    "resets",
    "send_parts",
    "unreadable",
    "values",
    "whole_request",
]
