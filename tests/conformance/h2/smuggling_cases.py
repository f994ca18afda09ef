"""RFC 9113 section 10.3: an intermediary between HTTP/2 and HTTP/1.1. What an attacker writes into fields that HTTP/1.1 ends
with CRLF must never become a second request: everything that reaches the real upstream is counted."""

from __future__ import annotations

from hyperframe.frame import RstStreamFrame

from case import GET, PATH, POST, Case, Trial, expect, must_refuse, refuses, unreadable
from wire import Code, Failed, Header

METHOD, SCHEME, AUTHORITY, TARGET = GET
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: edge.test\r\n\r\n"
INJECTED = b"x\r\nX-Injected: 1"
SPLIT = b" HTTP/1.1\r\nHost: edge.test\r\n\r\n" + SECOND
STATUSES = (400, 403, 405, 414, 501)


def only_one_arrives(name: str, fields: list[Header], data: bytes) -> Case:
    """Refused or served, but at most one request arrives, it is ours, and no part of the body is read as another."""

    def body(trial: Trial) -> None:
        connection = trial.connect()
        stream = connection.stream(connection.request(trial.fill(fields), data))
        connection.wait(lambda: stream.is_over or connection.goaway is not None, "an answer")
        trial.serves(trial.connect(), "?next=1")
        seen = [fact for fact in trial.arrivals() if "next=1" not in str(fact.get("url"))]
        strange = [fact for fact in seen if not str(fact.get("url", "")).startswith(trial.path)]
        if strange or len(seen) > 1:
            raise Failed(f"the upstream saw {seen}")

    return Case("9113-10.3", name, body)


def body_is_no_request(trial: Trial) -> None:
    """A body that looks like a request is a body."""
    connection = trial.connect()
    for _ in range(3):
        stream = connection.response(connection.request(trial.post("?x=1"), SECOND))
        expect("status", stream.status, 200)
    heads = [fact for fact in trial.arrivals() if fact["kind"] == "head"]
    expect("requests", [fact["url"] for fact in heads], [f"{trial.path}?x=1"] * 3)
    expect("body", trial.request_seen()["body"], SECOND.decode())


def get_with_body(trial: Trial) -> None:
    """A GET may have a body; on the shard's connection it must be framed, or the next request begins inside it."""
    connection = trial.connect()
    connection.response(connection.request(trial.get("?x=1"), SECOND))
    trial.serves(connection, "?next=1")
    heads = [fact["url"] for fact in trial.arrivals() if fact["kind"] in ("head", "broken")]
    expect("requests", heads, [f"{trial.path}?x=1", f"{trial.path}?next=1"])


def ended_by_reset(trial: Trial) -> None:
    """A body that a reset cuts off: the shard's connection is not used again with half a body on it."""
    connection = trial.connect()
    number = connection.request(trial.post("?hang=1", ("content-length", "100")), end=False)
    connection.data(number, b"GET /smuggled-half ")
    trial.arrived(lambda fact: fact["kind"] == "head", "the head")
    connection.send(RstStreamFrame(number, Code.CANCEL))
    for _ in range(5):
        trial.serves(connection, "?next=1")
    strange = [f for f in trial.arrivals() if f["kind"] == "broken" or "smuggled" in str(f.get("url"))]
    expect("requests that nobody made", strange, [])


def injected(what: str, fields: list[Header]) -> Case:
    """CR and LF where HTTP/1.1 ends a line."""
    return unreadable("9113-10.3", f"CRLF in {what} reaches nobody", fields)


def fragment_stays_behind(trial: Trial) -> None:
    """9113-8.3.1 knows no fragment: refused, or left out, but never in what is routed by and forwarded."""
    connection = trial.connect()
    stream = connection.response(connection.request(trial.get("?x=1#fragment")))
    if stream.status == 200:
        expect("target at the upstream", trial.request_seen()["url"], f"{trial.path}?x=1")
    else:
        must_refuse(trial, connection, 1, STATUSES)


def with_header(name: str | bytes, value: str | bytes) -> list[Header]:
    """A GET with one more field."""
    return [*GET, (name, value)]


CASES: list[Case] = [
    Case("9113-10.3", "a body that is a request stays a body", body_is_no_request),
    Case("9113-10.3", "a GET with a body leaves no rest on the shard's connection", get_with_body),
    Case(
        "9113-10.3", "a body cut off by RST_STREAM leaves no rest on the shard's connection", ended_by_reset
    ),
    only_one_arrives(
        "H2.CL: content-length 0 with a second request as the body", [*POST, ("content-length", "0")], SECOND
    ),
    only_one_arrives(
        "H2.CL: content-length below the body", [*POST, ("content-length", "3")], b"abc" + SECOND
    ),
    only_one_arrives("H2.CL: a list of lengths", [*POST, ("content-length", "4, 4")], b"abcd" + SECOND),
    only_one_arrives(
        "H2.CL: a length that overflows", [*POST, ("content-length", "18446744073709551616")], SECOND
    ),
    only_one_arrives(
        "H2.TE: transfer-encoding chunked", [*POST, ("transfer-encoding", "chunked")], b"0\r\n\r\n" + SECOND
    ),
    only_one_arrives(
        "H2.TE: beside content-length",
        [*POST, ("content-length", "5"), ("transfer-encoding", "chunked")],
        b"0\r\n\r\n",
    ),
    only_one_arrives("H2.TE: in capitals", [*POST, ("transfer-encoding", "CHUNKED")], b"0\r\n\r\n" + SECOND),
    only_one_arrives(
        "H2.TE: behind a space", [*POST, (b"transfer-encoding ", "chunked")], b"0\r\n\r\n" + SECOND
    ),
    only_one_arrives(
        "H2.TE: with an underscore", [*POST, ("transfer_encoding", "chunked")], b"0\r\n\r\n" + SECOND
    ),
    injected("a value", with_header("x-a", INJECTED)),
    injected("a value that ends the head", with_header("x-a", b"x\r\n\r\n" + SECOND)),
    injected("a value as a bare LF", with_header("x-a", b"x\nX-Injected: 1")),
    injected("a name", with_header(b"x-a\r\nx-injected", "1")),
    injected("a name with a whole field", with_header(b"x-a: 1\r\nx-b", "1")),
    injected(":path", [*GET[:3], (":path", PATH.encode() + SPLIT)]),
    injected(":method", [(":method", b"GET /smuggled HTTP/1.1\r\nX: "), *GET[1:]]),
    injected(":authority", [METHOD, SCHEME, (":authority", b"edge.test\r\nX-Injected: 1"), TARGET]),
    injected(":scheme", [METHOD, (":scheme", b"https://x\r\nX-Injected: 1"), AUTHORITY, TARGET]),
    injected("host", [METHOD, SCHEME, TARGET, ("host", b"edge.test\r\nX-Injected: 1")]),
    injected("cookie", with_header("cookie", b"a=1\r\nX-Injected: 1")),
    unreadable(
        "9113-10.3", "a space in :method reaches nobody", [(":method", "GET /smuggled HTTP/1.1"), *GET[1:]]
    ),
    refuses(
        "9113-10.3",
        "a space in :path reaches nobody",
        [*GET[:3], (":path", PATH + " HTTP/1.1")],
        statuses=STATUSES,
    ),
    refuses(
        "9113-10.3", "a tab in :path reaches nobody", [*GET[:3], (":path", PATH + "\tx")], statuses=STATUSES
    ),
    Case("9113-10.3", "a fragment in :path reaches nobody", fragment_stays_behind),
    refuses(
        "9113-10.3",
        "a slash in :authority reaches nobody",
        [METHOD, SCHEME, (":authority", "edge.test/x"), TARGET],
        statuses=STATUSES,
    ),
    refuses(
        "9113-10.3",
        "a strange :scheme reaches nobody",
        [METHOD, (":scheme", "gopher://x"), AUTHORITY, TARGET],
        statuses=STATUSES,
    ),
]
