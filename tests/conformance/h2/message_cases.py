"""RFC 9113 chapter 8: requests and responses, and which are malformed. The upstream speaks HTTP/1.1."""

from __future__ import annotations

import json
from collections.abc import Callable

from hyperframe.frame import HeadersFrame

from case import GET, PATH, POST, Case, Trial, accepts, expect, refuses, unreadable, values
from rig import Fact
from wire import Code, Failed, Header, Stream

METHOD, SCHEME, AUTHORITY, TARGET = GET
CONNECT_STATUSES = (400, 403, 405, 501)


def trailers_arrive(trial: Trial) -> None:
    connection = trial.connect()
    number = connection.request(trial.post("", ("trailer", "x-sum")), end=False)
    connection.data(number, b"body")
    block = connection.block([("x-sum", "42")])
    connection.send(HeadersFrame(number, block, flags=["END_HEADERS", "END_STREAM"]))
    expect("status", connection.response(number).status, 200)
    seen = trial.request_seen()
    expect("body", seen["body"], "body")
    expect("trailers", [text.lower() for text in seen["trailers"]], ["x-sum", "42"])


def bad_trailers(trial: Trial, fields: list[Header], *flags: str) -> None:
    connection = trial.connect()
    number = connection.request(trial.post("?hang=1"), end=False)
    connection.data(number, b"body")
    connection.send(HeadersFrame(number, connection.block(fields), flags=["END_HEADERS", *flags]))
    stream = connection.stream(number)
    connection.wait(lambda: stream.is_over or connection.goaway is not None, "a refusal")
    code = connection.goaway.error_code if connection.goaway else stream.reset
    if code != Code.PROTOCOL_ERROR and stream.status != 400:
        raise Failed(f"expected PROTOCOL_ERROR or 400; {stream}; {connection.farewell()}")
    expect("whole requests at the upstream", whole_requests(trial), [])


def whole_requests(trial: Trial) -> list[str]:
    """Which requests to this case's path the upstream has got to their end."""
    trial.arrivals()
    return [
        fact["url"]
        for fact in trial.facts()
        if fact["kind"] == "request" and fact["url"].startswith(trial.path)
    ]


def pseudo_header_in_trailers(trial: Trial) -> None:
    """Malformed, says 8.1; hyper's h2 leaves the field out. What counts is that no shard ever takes it for one."""
    connection = trial.connect()
    number = connection.request(trial.post("", ("trailer", "x-sum, :path")), end=False)
    connection.data(number, b"body")
    block = connection.block([(":path", "/other"), ("x-sum", "42")])
    connection.send(HeadersFrame(number, block, flags=["END_HEADERS", "END_STREAM"]))
    stream = connection.response(number)
    if stream.status == 200:
        trailers = [text.lower() for text in trial.request_seen()["trailers"]]
        expect("trailers without the pseudo-header", trailers, ["x-sum", "42"])
    elif stream.reset != Code.PROTOCOL_ERROR and stream.status != 400:
        raise Failed(f"expected PROTOCOL_ERROR, 400 or 200; {stream}")


def response_trailers(trial: Trial) -> None:
    connection = trial.connect()
    stream = connection.response(connection.request(trial.get("?trailers=1", ("te", "trailers"))))
    expect("body", bytes(stream.body), b"body")
    expect("trailers", stream.trailers, [("x-sum", "42")])


def early_hints(trial: Trial) -> None:
    connection = trial.connect()
    stream = connection.response(connection.request(trial.get("?hints=1")))
    expect("status", stream.status, 200)
    # A proxy may keep a 103 to itself (9110-15.2 asks it to pass it on); what it may not is take it for the response.
    for fields in stream.informational:
        expect("an informational status", dict(fields)[":status"], "103")


def expect_continue(trial: Trial) -> None:
    """hyper has no way to say 100 on a stream: a client sends its body after a moment, as 9110-10.1.1 tells it to."""
    connection = trial.connect()
    number = connection.request(
        trial.post("", ("expect", "100-continue"), ("content-length", "4")), end=False
    )
    stream = connection.stream(number)
    connection.ping()
    for fields in stream.informational:
        expect("informational", fields, [(":status", "100")])
    connection.data(number, b"body", end=True)
    expect("status", connection.response(number).status, 200)
    expect("body", trial.request_seen()["body"], "body")


def early_response(trial: Trial) -> None:
    """The shard answers before it has the body: the answer arrives whole, and the connection goes on."""
    connection = trial.connect()
    number = connection.request(trial.post("?early=1"), end=False)
    connection.data(number, b"x" * 1_000)
    stream = connection.response(number)
    expect("status", stream.status, 200)
    if stream.reset not in (None, Code.NO_ERROR):
        raise Failed(f"expected RST_STREAM NO_ERROR at most; {stream}")
    trial.serves(connection)


def cut_short(trial: Trial) -> None:
    """The shard breaks off: the client must not take what it got for the whole."""
    connection = trial.connect()
    stream = connection.response(connection.request(trial.get("?break=1")))
    if stream.reset is None:
        raise Failed(f"expected RST_STREAM; {stream}")
    trial.serves(connection)


def length_and_data_differ(trial: Trial, length: str, body: bytes) -> None:
    connection = trial.connect()
    number = connection.request(trial.post("", ("content-length", length)), body)
    stream = connection.response(number)
    if stream.reset != Code.PROTOCOL_ERROR and stream.status != 400:
        raise Failed(f"expected PROTOCOL_ERROR of the stream or 400; {stream}")
    # The head may be at the shard already; a whole request must never be.
    for fact in trial.arrivals():
        if fact["kind"] not in ("head", "broken") or not str(fact.get("url", trial.path)).startswith(
            trial.path
        ):
            raise Failed(f"the upstream saw {fact}")
    trial.serves(connection)


def differs(name: str, length: str, body: bytes) -> Case:
    """A content-length that lies."""
    return Case("9113-8.1.1", name, lambda trial: length_and_data_differ(trial, length, body))


def options_of_the_server(trial: Trial) -> None:
    """`OPTIONS *` is for the server as a whole: ours answers by itself or the shard sees an asterisk, never a path."""
    connection = trial.connect()
    fields = trial.fill([(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")])
    stream = connection.response(connection.request(fields))
    if stream.reset is not None or stream.status is None or stream.status >= 500:
        raise Failed(f"expected an answer; {stream}")
    for fact in trial.arrivals():
        expect("target at the upstream", fact["url"], "*")


def cookie_crumbs(stream: Stream, seen: Fact) -> None:
    del stream
    expect("cookie", values(seen, "cookie"), ["a=1; b=2; c=3"])


def hop_fields_of_the_shard(stream: Stream, seen: Fact) -> None:
    # wire.py fails on any of 9113-8.2.2; the field that Connection names is one of them too.
    del seen
    expect("x-hop", stream.value("x-hop"), "")


def no_body(stream: Stream, seen: Fact) -> None:
    del seen
    expect("bytes", len(stream.body), 0)


def head_keeps_length(stream: Stream, seen: Fact) -> None:
    expect("method", seen["method"], "HEAD")
    expect("bytes", len(stream.body), 0)
    if int(stream.value("content-length") or 0) < 10:
        raise Failed(f"expected the length that GET would have; {stream.headers}")


def has(name: str, wanted: list[str]) -> Callable[[Stream, Fact], None]:
    """A check of one header at the upstream."""

    def check(stream: Stream, seen: Fact) -> None:
        del stream
        expect(name, values(seen, name), wanted)

    return check


def passed_on_once(trial: Trial) -> None:
    connection = trial.connect()
    stream = connection.response(connection.request(trial.post("?x=1"), b"body"))
    seen = json.loads(bytes(stream.body))
    expect("method and target", (seen["method"], seen["url"]), ("POST", f"{trial.path}?x=1"))
    expect("host", values(seen, "host"), ["edge.test"])
    expect(
        "pseudo-headers at the upstream", [name for name in seen["headers"][::2] if name.startswith(":")], []
    )
    framing = values(seen, "content-length") + values(seen, "transfer-encoding")
    if framing not in (["4"], ["chunked"]):
        raise Failed(f"expected one framing of the body; {framing}")
    expect("requests", len([fact for fact in trial.arrivals() if fact["kind"] == "head"]), 1)


def bytes_of_a_name(section: str, what: str, name: bytes) -> Case:
    """A header name with a byte that no name has."""
    return unreadable(section, f"a name with {what} is malformed", [*GET, (name, "1")])


def bytes_of_a_value(section: str, what: str, value: bytes) -> Case:
    """A header value with a byte that no value has."""
    return unreadable(section, f"a value with {what} is malformed", [*GET, ("x-value", value)])


def spaces_around_a_value(what: str, value: bytes) -> Case:
    """Read by some as the value without the space, by some as another one."""
    return refuses("9113-8.2.1", f"a value with {what} is malformed", [*GET, ("x-value", value)])


CASES: list[Case] = [
    Case("9113-8.1", "a POST arrives once, with its body and one framing", passed_on_once),
    Case("9113-8.1", "trailers of a request arrive", trailers_arrive),
    Case(
        "9113-8.1",
        "trailers without END_STREAM are malformed",
        lambda trial: bad_trailers(trial, [("x-sum", "42")]),
    ),
    Case("9113-8.1", "a pseudo-header in trailers reaches nobody", pseudo_header_in_trailers),
    Case(
        "9113-8.1",
        "trailers with an uppercase name are malformed",
        lambda trial: bad_trailers(trial, [("X-Sum", "42")], "END_STREAM"),
    ),
    Case("9113-8.1", "trailers of a response arrive", response_trailers),
    Case("9113-8.1", "an early response arrives whole", early_response),
    Case("9113-8.1", "an informational response is not the response", early_hints),
    Case("9113-8.1", "Expect: 100-continue gets its answer, and its body arrives", expect_continue),
    Case("9113-8.1.1", "a response cut short at the shard is RST_STREAM", cut_short),
    accepts(
        "9113-8.1.1",
        "HEAD has no DATA and keeps content-length",
        [(":method", "HEAD"), *GET[1:]],
        head_keeps_length,
    ),
    accepts(
        "9113-8.1.1", "204 has no DATA", [*GET[:3], (":path", PATH + "?status=204")], no_body, status=204
    ),
    accepts(
        "9113-8.1.1", "304 has no DATA", [*GET[:3], (":path", PATH + "?status=304")], no_body, status=304
    ),
    differs("content-length above DATA is malformed", "10", b"short"),
    differs("content-length below DATA is malformed", "3", b"longer"),
    differs("content-length without any DATA is malformed", "5", b""),
    refuses(
        "9113-8.1.1",
        "content-length 5 on HEADERS with END_STREAM is malformed",
        [*POST, ("content-length", "5")],
    ),
    refuses(
        "9113-8.1.1", "content-length that is no number", [*POST, ("content-length", "four")], data=b"four"
    ),
    refuses("9113-8.1.1", "content-length with a sign", [*POST, ("content-length", "+4")], data=b"four"),
    refuses(
        "9113-8.1.1",
        "two content-lengths that differ",
        [*POST, ("content-length", "4"), ("content-length", "5")],
        data=b"four",
    ),
    unreadable("9113-8.2", "an uppercase name is malformed", [*GET, ("X-Upper", "1")]),
    bytes_of_a_name("9113-8.2.1", "a space", b"x y"),
    bytes_of_a_name("9113-8.2.1", "a colon", b"x:y"),
    bytes_of_a_name("9113-8.2.1", "NUL", b"x\0y"),
    bytes_of_a_name("9113-8.2.1", "DEL", b"x\x7fy"),
    bytes_of_a_name("9113-8.2.1", "a byte above 127", b"x\xe9y"),
    unreadable("9113-8.2.1", "an empty name is malformed", [*GET, (b"", "1")]),
    bytes_of_a_value("9113-8.2.1", "NUL", b"a\0b"),
    bytes_of_a_value("9113-8.2.1", "LF", b"a\nb"),
    bytes_of_a_value("9113-8.2.1", "CR", b"a\rb"),
    spaces_around_a_value("a space before", b" a"),
    spaces_around_a_value("a space behind", b"a "),
    spaces_around_a_value("a tab behind", b"a\t"),
    accepts("9113-8.2.1", "an empty value is passed on", [*GET, ("x-empty", "")], has("x-empty", [""])),
    refuses("9113-8.2.2", "connection is malformed", [*GET, ("connection", "keep-alive")]),
    refuses("9113-8.2.2", "keep-alive is malformed", [*GET, ("keep-alive", "timeout=5")]),
    refuses("9113-8.2.2", "proxy-connection is malformed", [*GET, ("proxy-connection", "keep-alive")]),
    refuses(
        "9113-8.2.2",
        "transfer-encoding is malformed",
        [*POST, ("transfer-encoding", "chunked")],
        data=b"0\r\n\r\n",
    ),
    refuses("9113-8.2.2", "upgrade is malformed", [*GET, ("upgrade", "websocket")]),
    refuses("9113-8.2.2", "te other than trailers is malformed", [*GET, ("te", "gzip")]),
    accepts("9113-8.2.2", "te: trailers is accepted", [*GET, ("te", "trailers")]),
    accepts(
        "9113-8.2.2",
        "connection fields of the shard stay behind",
        [*GET[:3], (":path", PATH + "?hop=1")],
        hop_fields_of_the_shard,
    ),
    accepts(
        "9113-8.2.3",
        "cookie crumbs are joined for HTTP/1.1",
        [*GET, ("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")],
        cookie_crumbs,
    ),
    unreadable("9113-8.3", "an unknown pseudo-header is malformed", [*GET, (":color", "red")]),
    refuses("9113-8.3", "a pseudo-header of responses is malformed", [*GET, (":status", "200")]),
    refuses("9113-8.3", "a pseudo-header behind a field is malformed", [*GET[:3], ("x-first", "1"), TARGET]),
    refuses("9113-8.3.1", "no :method is malformed", [SCHEME, AUTHORITY, TARGET]),
    refuses("9113-8.3.1", "no :scheme is malformed", [METHOD, AUTHORITY, TARGET]),
    refuses("9113-8.3.1", "no :path is malformed", [METHOD, SCHEME, AUTHORITY]),
    refuses("9113-8.3.1", "two :method are malformed", [METHOD, *GET]),
    refuses("9113-8.3.1", "two :scheme are malformed", [*GET[:2], SCHEME, *GET[2:]]),
    refuses("9113-8.3.1", "two :path are malformed", [*GET, TARGET]),
    refuses("9113-8.3.1", "two :authority are malformed", [*GET[:3], (":authority", "other.test"), TARGET]),
    refuses("9113-8.3.1", "an empty :path is malformed", [*GET[:3], (":path", "")]),
    refuses("9113-8.3.1", "a :path without a slash is malformed", [*GET[:3], (":path", "room")]),
    refuses(
        "9113-8.3.1", "an asterisk for another method than OPTIONS is malformed", [*GET[:3], (":path", "*")]
    ),
    Case("9113-8.3.1", "OPTIONS * is answered, or passed on as it is", options_of_the_server),
    refuses("9113-8.3.1", "neither :authority nor host is 400", [METHOD, SCHEME, TARGET]),
    refuses("9113-8.3.1", "an empty :authority is 400", [METHOD, SCHEME, (":authority", ""), TARGET]),
    refuses(
        "9113-8.3.1",
        ":authority with userinfo is malformed",
        [METHOD, SCHEME, (":authority", "user@edge.test"), TARGET],
    ),
    refuses("9113-8.3.1", "a host that differs from :authority is malformed", [*GET, ("host", "other.test")]),
    accepts(
        "9113-8.3.1",
        "a host that equals :authority is passed on once",
        [*GET, ("host", "edge.test")],
        has("host", ["edge.test"]),
    ),
    accepts(
        "9113-8.3.1",
        "host without :authority is the host",
        [METHOD, SCHEME, TARGET, ("host", "edge.test")],
        has("host", ["edge.test"]),
    ),
    refuses(
        "9113-8.3.1",
        "two hosts are malformed",
        [METHOD, SCHEME, TARGET, ("host", "edge.test"), ("host", "other.test")],
    ),
    refuses(
        "9113-8.5",
        "CONNECT is not served",
        [(":method", "CONNECT"), (":authority", "127.87.0.2:1")],
        statuses=CONNECT_STATUSES,
        codes=(Code.PROTOCOL_ERROR, Code.REFUSED_STREAM, Code.CANCEL),
    ),
    refuses(
        "9113-8.5",
        "CONNECT with :scheme and :path is malformed",
        [(":method", "CONNECT"), *GET[1:]],
        statuses=CONNECT_STATUSES,
    ),
]
