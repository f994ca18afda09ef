"""RFC 8441: WebSockets inside HTTP/2 by extended CONNECT. The upstream speaks RFC 6455 over HTTP/1.1."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from case import PATH, Case, Trial, breaks, expect, refuses, unreadable, values
from rig import Fact
from wire import DEFAULT_WINDOW, Code, Connection, Failed, Header, Setting, Stream

CONNECT: Header = (":method", "CONNECT")
PROTOCOL: Header = (":protocol", "websocket")
WEBSOCKET: list[Header] = [
    CONNECT,
    PROTOCOL,
    (":scheme", "https"),
    (":authority", "edge.test"),
    (":path", PATH),
    ("sec-websocket-version", "13"),
    ("origin", "https://edge.test"),
]
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_MASK = b"\x11\x22\x33\x44"
REFUSED = (400, 403, 405, 501)


def frame(opcode: int, payload: bytes) -> bytes:
    """A masked WebSocket frame, as a client writes it."""
    size = len(payload)
    if size < 126:
        start = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65_536:
        start = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack(">H", size)
    else:
        start = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack(">Q", size)
    repeated = _MASK * (size // 4 + 1)
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")).to_bytes(size, "big")
    return start + _MASK + masked


class Tunnel:
    """One WebSocket on one stream."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.stream: Stream = connection.stream(number)
        self._taken = 0

    def say(self, payload: bytes, opcode: int = TEXT) -> None:
        """Sends one message, as the server's windows allow."""
        self.connection.upload(self.number, frame(opcode, payload), end=False)

    def hear(self) -> tuple[int, bytes]:
        """The next frame of the shard."""
        self.connection.wait(self._has_frame, "a WebSocket frame")
        start, size = self._next_size()
        opcode = self.stream.body[self._taken] & 0x0F
        payload = bytes(self.stream.body[self._taken + start : self._taken + start + size])
        self._taken += start + size
        return opcode, payload

    def echo(self, payload: bytes, opcode: int = TEXT) -> None:
        """One message there and back."""
        self.say(payload, opcode)
        heard = self.hear()
        if heard != (opcode, payload):
            raise Failed(f"expected {len(payload)} bytes back, got {len(heard[1])} of type {heard[0]}")

    def _has_frame(self) -> bool:
        start, size = self._next_size()
        if self.stream.is_over and len(self.stream.body) < self._taken + start + size:
            raise Failed(f"the tunnel ended: {self.stream}")
        return len(self.stream.body) >= self._taken + start + size

    def _next_size(self) -> tuple[int, int]:
        rest = self.stream.body[self._taken : self._taken + 10]
        size = rest[1] & 0x7F if len(rest) > 1 else 0
        if size == 126:
            return 4, int.from_bytes(rest[2:4], "big") if len(rest) >= 4 else 0
        if size == 127:
            return 10, int.from_bytes(rest[2:10], "big") if len(rest) >= 10 else 0
        return 2, size


def is_offered(connection: Connection) -> None:
    """Waits for the setting without which a client may not use extended CONNECT."""
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    offered = (connection.settings or {}).get(Setting.ENABLE_CONNECT_PROTOCOL)
    expect("SETTINGS_ENABLE_CONNECT_PROTOCOL", offered, 1)


def open_tunnel(trial: Trial, connection: Connection, query: str = "", *extra: Header) -> Tunnel:
    """A WebSocket that the shard has granted."""
    is_offered(connection)
    fields = trial.fill([*WEBSOCKET[:4], (":path", PATH + query), *WEBSOCKET[5:], *extra])
    number = connection.request(fields, end=False)
    stream = connection.stream(number)
    connection.wait(lambda: stream.headers is not None or stream.is_over, "an answer to CONNECT")
    if stream.status != 200 or stream.is_over:
        raise Failed(f"expected 200 and an open stream; {stream}")
    return Tunnel(connection, number)


def setting_is_sent(trial: Trial) -> None:
    is_offered(trial.connect())


def echoes(trial: Trial) -> None:
    tunnel = open_tunnel(trial, trial.connect())
    for payload in (b"", b"hello", "größer".encode(), b"x" * 200, bytes(range(256)) * 100):
        tunnel.echo(payload, BINARY)
    tunnel.echo(b"text")
    tunnel.say(b"are you there", PING)
    expect("PONG", tunnel.hear(), (PONG, b"are you there"))


def what_the_shard_sees(trial: Trial) -> None:
    tunnel = open_tunnel(trial, trial.connect(), "?a=b", ("sec-websocket-protocol", "xmpp"), ("x-more", "1"))
    seen = trial.arrived(lambda fact: fact["kind"] == "upgrade", "the upgrade")
    expect("method and target", (seen["method"], seen["url"]), ("GET", f"{trial.path}?a=b"))
    expect("upgrade", [text.lower() for text in values(seen, "upgrade")], ["websocket"])
    expect("connection", [text.lower() for text in values(seen, "connection")], ["upgrade"])
    expect("host", values(seen, "host"), ["edge.test"])
    expect("version", values(seen, "sec-websocket-version"), ["13"])
    expect("keys", len(values(seen, "sec-websocket-key")), 1)
    expect("x-more", values(seen, "x-more"), ["1"])
    expect("bodies", values(seen, "content-length") + values(seen, "transfer-encoding"), [])
    expect("the chosen protocol", tunnel.stream.value("sec-websocket-protocol"), "xmpp")
    expect("x-shard", tunnel.stream.value("x-shard"), "upstream")
    expect("sec-websocket-accept, which HTTP/2 has not", tunnel.stream.value("sec-websocket-accept"), "")
    expect("content-length", tunnel.stream.value("content-length"), "")


def keys_differ(trial: Trial) -> None:
    """RFC 6455 4.1 wants a fresh nonce for each connection; HTTP/2 brings none, so the proxy makes it."""
    connection = trial.connect()
    for _ in range(5):
        open_tunnel(trial, connection)
    upgrades = [fact for fact in trial.arrivals() if fact["kind"] == "upgrade"]
    keys = {key for fact in upgrades for key in values(fact, "sec-websocket-key")}
    expect("different keys", len(keys), 5)


def one_ends_alone(trial: Trial) -> None:
    connection = trial.connect()
    one, two, three = (open_tunnel(trial, connection, f"?tunnel={n}") for n in range(3))
    for tunnel in (one, two, three):
        tunnel.echo(b"before")
    one.say(b"please close")
    connection.wait(lambda: one.stream.is_over, "the end of the first tunnel")
    two.echo(b"still here")
    connection.send(RstStreamFrame(three.number, Code.CANCEL))
    two.echo(b"still here, too")
    trial.serves(connection)
    expect("GOAWAY", connection.goaway, None)


def requests_alongside(trial: Trial) -> None:
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    for n in range(20):
        number = connection.request(trial.get("?size=1000"))
        tunnel.echo(f"message {n}".encode())
        expect("bytes", len(connection.response(number).body), 1_000)


def client_ends(trial: Trial) -> None:
    """END_STREAM is the FIN of RFC 8441 section 5: the shard sees the end, and the tunnel ends on our side as well."""
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    tunnel.echo(b"hello")
    tunnel.connection.data(tunnel.number, b"", end=True)
    trial.arrived(lambda fact: fact["kind"] == "gone", "the tunnel ends at the shard")
    connection.wait(lambda: tunnel.stream.is_over, "the end of the tunnel")
    trial.serves(connection)


def client_closes_properly(trial: Trial) -> None:
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    tunnel.say(b"\x03\xe8", CLOSE)
    expect("CLOSE of the shard", tunnel.hear(), (CLOSE, b"\x03\xe8"))
    connection.wait(lambda: tunnel.stream.ended, "END_STREAM after the shard's FIN")
    connection.data(tunnel.number, b"", end=True)
    trial.serves(connection)


def client_resets(trial: Trial) -> None:
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    tunnel.echo(b"hello")
    connection.send(RstStreamFrame(tunnel.number, Code.CANCEL))
    trial.arrived(lambda fact: fact["kind"] == "gone", "the tunnel ends at the shard")
    trial.serves(connection)


def connection_is_lost(trial: Trial) -> None:
    """A client that disappears takes all its tunnels with it."""
    connection = trial.connect()
    for n in range(3):
        open_tunnel(trial, connection, f"?lost={n}").echo(b"hello")
    connection.__exit__()
    for n in range(3):
        trial.arrived(ends(f"lost={n}"), f"tunnel {n} ends")


def ends(query: str) -> Callable[[Fact], bool]:
    """The end of one tunnel, as the upstream tells it."""
    return lambda fact: fact["kind"] == "gone" and query in fact["url"]


def shard_closes(trial: Trial) -> None:
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    tunnel.say(b"please close")
    expect("CLOSE", tunnel.hear(), (CLOSE, b"\x03\xe8"))
    connection.wait(lambda: tunnel.stream.is_over, "END_STREAM")
    expect("END_STREAM, not RST_STREAM", (tunnel.stream.ended, tunnel.stream.reset), (True, None))
    trial.serves(connection)


def shard_breaks(trial: Trial) -> None:
    """A TCP reset at the shard ends the tunnel and no other stream. 8441-5 makes it RST_STREAM CANCEL; hyper has only END_STREAM for a
    stream that was upgraded, as HAProxy. A WebSocket client takes both for a lost connection, since no CLOSE came."""
    connection = trial.connect()
    other = open_tunnel(trial, connection)
    tunnel = open_tunnel(trial, connection)
    tunnel.say(b"please break")
    connection.wait(lambda: tunnel.stream.is_over, "the end of the tunnel")
    other.echo(b"still here")
    trial.serves(connection)


def large_messages(trial: Trial) -> None:
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    tunnel.echo(bytes(range(256)) * 8_192, BINARY)
    tunnel.say(b"please send 3000000")
    opcode, payload = tunnel.hear()
    expect("3 MB from the shard", (opcode, len(payload)), (BINARY, 3_000_000))
    expect("all of it", payload, bytes(n % 251 for n in range(3_000_000)))


def tiny_window(trial: Trial) -> None:
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 1})
    tunnel = open_tunnel(trial, connection)
    tunnel.echo(b"byte by byte through a window of one" * 5)
    expect("largest DATA frame", max(tunnel.stream.pieces), 1)


def shut_window_holds_nobody(trial: Trial) -> None:
    """A tunnel whose client does not read holds up no other stream, and the shard's bytes do not pile up in the proxy."""
    connection = trial.connect()
    connection.send(WindowUpdateFrame(0, 1 << 30))
    stuck = open_tunnel(trial, connection)
    connection.gives_windows = False
    before = trial.rig.memory_kib()
    stuck.say(b"please send 64000000")
    connection.wait(lambda: len(stuck.stream.body) >= DEFAULT_WINDOW, "a whole window")
    other = open_tunnel(trial, connection)
    other.echo(b"not held up")
    trial.serves(connection)
    grown = trial.rig.memory_kib() - before
    if grown > 16_384:
        raise Failed(f"the proxy grew by {grown} KiB for a client that does not read")
    expect("bytes of the stuck one", len(stuck.stream.body), DEFAULT_WINDOW)


def shard_refuses(trial: Trial) -> None:
    """What the shard says instead of 101 is the answer."""
    connection = trial.connect()
    is_offered(connection)
    fields = trial.fill([*WEBSOCKET[:4], (":path", PATH + "?refuse=403"), *WEBSOCKET[5:]])
    stream = connection.response(connection.request(fields, end=False))
    expect("status and body", (stream.status, bytes(stream.body)), (403, b"refused"))
    trial.serves(connection)


def shard_answers_instead(trial: Trial) -> None:
    """A 2xx would open a tunnel (RFC 8441, 5), and a shard that knows nothing of upgrades says 200 to anything."""
    connection = trial.connect()
    is_offered(connection)
    fields = trial.fill([*WEBSOCKET[:4], (":path", PATH + "?refuse=200"), *WEBSOCKET[5:]])
    stream = connection.response(connection.request(fields, end=False))
    expect("status", stream.status, 502)
    trial.serves(connection)


def many_tunnels(trial: Trial) -> None:
    connection = trial.connect()
    tunnels = [open_tunnel(trial, connection, f"?many={n}") for n in range(50)]
    for n, tunnel in enumerate(tunnels):
        tunnel.say(f"number {n}".encode())
    for n, tunnel in enumerate(tunnels):
        expect("echo", tunnel.hear(), (TEXT, f"number {n}".encode()))


def data_before_the_answer(trial: Trial) -> None:
    """A client may send its first frame with the request; it arrives behind the handshake."""
    connection = trial.connect()
    is_offered(connection)
    number = connection.new_stream()
    head = HeadersFrame(number, connection.block(trial.fill(WEBSOCKET)), flags=["END_HEADERS"])
    connection.send(head, DataFrame(number, frame(TEXT, b"early")))
    expect("echo", Tunnel(connection, number).hear(), (TEXT, b"early"))


def ended_at_once(trial: Trial) -> None:
    """END_STREAM on the request itself: nothing could ever be sent, so it is no WebSocket."""
    connection = trial.connect()
    is_offered(connection)
    stream = connection.response(connection.request(trial.fill(WEBSOCKET)))
    if stream.status is not None and stream.status not in (200, *REFUSED):
        raise Failed(f"expected a refusal or a tunnel that ends; {stream}")
    trial.serves(connection)


def with_key_of_its_own(trial: Trial) -> None:
    """`Sec-WebSocket-Key` means nothing here (8441-5); the shard must still get one valid key."""
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection, "", ("sec-websocket-key", "bad"))
    tunnel.echo(b"hello")
    seen = trial.arrived(lambda fact: fact["kind"] == "upgrade", "the upgrade")
    expect("keys", len(values(seen, "sec-websocket-key")), 1)


def without(name: str) -> list[Header]:
    """A handshake that lacks one field."""
    return [pair for pair in WEBSOCKET if pair[0] != name]


CASES: list[Case] = [
    Case("8441-3", "SETTINGS_ENABLE_CONNECT_PROTOCOL is 1", setting_is_sent),
    breaks(
        "8441-3",
        "ENABLE_CONNECT_PROTOCOL 2 from a client",
        Code.PROTOCOL_ERROR,
        SettingsFrame(0, settings={Setting.ENABLE_CONNECT_PROTOCOL: 2}),
    ),
    refuses(
        "8441-4",
        "extended CONNECT without :scheme is malformed",
        without(":scheme"),
        data=b"",
        statuses=REFUSED,
    ),
    refuses(
        "8441-4", "extended CONNECT without :path is malformed", without(":path"), data=b"", statuses=REFUSED
    ),
    refuses(
        "8441-4",
        "extended CONNECT without :authority is refused",
        without(":authority"),
        data=b"",
        statuses=REFUSED,
    ),
    refuses(
        "8441-4",
        ":protocol with GET is malformed",
        [(":method", "GET"), *WEBSOCKET[1:]],
        statuses=REFUSED,
    ),
    refuses("8441-4", "two :protocol are malformed", [CONNECT, PROTOCOL, *WEBSOCKET[1:]], statuses=REFUSED),
    refuses(
        "8441-4",
        "an unknown :protocol is refused",
        [CONNECT, (":protocol", "carrier-pigeon"), *WEBSOCKET[2:]],
        data=b"",
        statuses=REFUSED,
        codes=(Code.PROTOCOL_ERROR, Code.REFUSED_STREAM, Code.CANCEL),
    ),
    refuses(
        "8441-4",
        "an empty :protocol is refused",
        [CONNECT, (":protocol", ""), *WEBSOCKET[2:]],
        data=b"",
        statuses=REFUSED,
        codes=(Code.PROTOCOL_ERROR, Code.REFUSED_STREAM, Code.CANCEL),
    ),
    refuses(
        "8441-4",
        "upgrade beside :protocol is malformed",
        [*WEBSOCKET, ("upgrade", "websocket")],
        statuses=REFUSED,
    ),
    unreadable(
        "8441-5",
        "CRLF in a field of the handshake reaches nobody",
        [*WEBSOCKET, ("x-a", b"x\r\nX-Injected: 1")],
    ),
    Case("8441-5", "messages of every size go both ways", echoes),
    Case("8441-5", "the shard sees a proper upgrade, the client 200 without its traces", what_the_shard_sees),
    Case("8441-5", "every handshake at the shard has a key of its own", keys_differ),
    Case("8441-5", "a client's Sec-WebSocket-Key is not passed on", with_key_of_its_own),
    Case("8441-5", "messages of 2 and 3 MB arrive whole", large_messages),
    Case("8441-5", "a window of one byte delivers everything", tiny_window),
    Case(
        "8441-5",
        "a tunnel that nobody reads holds up no other and does not fill the proxy",
        shut_window_holds_nobody,
    ),
    Case("8441-5", "50 tunnels in one connection", many_tunnels),
    Case("8441-5", "requests and a tunnel share a connection", requests_alongside),
    Case("8441-5", "a tunnel ends alone, by the shard or by RST_STREAM", one_ends_alone),
    Case("8441-5", "END_STREAM of the client ends the tunnel at the shard", client_ends),
    Case("8441-5", "CLOSE of the client is answered, then END_STREAM", client_closes_properly),
    Case("8441-5", "RST_STREAM of the client ends the tunnel at the shard", client_resets),
    Case("8441-5", "a lost connection ends its tunnels at the shard", connection_is_lost),
    Case("8441-5", "the shard's end is END_STREAM", shard_closes),
    Case("8441-5", "a TCP reset at the shard ends its tunnel and nothing else", shard_breaks),
    Case("8441-5", "what the shard refuses is refused with its own status", shard_refuses),
    Case("8441-5", "a shard's 200 in the place of its consent opens no tunnel", shard_answers_instead),
    Case("8441-5", "DATA before the answer arrives behind the handshake", data_before_the_answer),
    Case("8441-5", "a request that ends at once does no harm", ended_at_once),
]
