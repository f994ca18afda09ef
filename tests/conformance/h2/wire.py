"""One HTTP/2 connection over TLS. Nothing is checked before it is sent: the suite has to send what is wrong."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Longest wait for anything that must come; the machine may be busy.
WITHIN_S = 10.0
DEFAULT_WINDOW = 65_535

Header = tuple[str | bytes, str | bytes]
Headers = list[tuple[str, str]]


class Code(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """RFC 9113 section 6.5.2 and RFC 8441 section 3."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8


class Failed(Exception):
    """What a case expected did not happen."""


def name_of(code: int | None) -> str:
    """An error code as people read it."""
    if code is None:
        return "none"
    return Code(code).name if code in Code._value2member_map_ else hex(code)


def raw(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """A frame of which everything may be wrong, for what hyperframe refuses to write."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@dataclass
class Stream:
    """What came from the server on one stream."""

    informational: list[Headers] = field(default_factory=list)
    headers: Headers | None = None
    body: bytearray = field(default_factory=bytearray)
    pieces: list[int] = field(default_factory=list)
    trailers: Headers | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The final status, once it is there."""
        return int(self.value(":status")) if self.headers else None

    def value(self, name: str) -> str:
        """The one value of a header, or an empty string."""
        found = [value for key, value in self.headers or [] if key == name]
        if len(found) > 1:
            raise Failed(f"{name} stands {len(found)} times in the response")
        return found[0] if found else ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self.ended or self.reset is not None

    def __str__(self) -> str:
        return (
            f"status {self.status}, {len(self.body)} bytes, ended {self.ended}, reset {name_of(self.reset)}"
        )


class Connection:
    """A client that reads and answers properly (SETTINGS, PING, windows) unless told otherwise, and writes anything."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        alpn: Iterable[str] = ("h2",),
        settings: Mapping[int, int] | None = None,
        opening: bytes | None = None,
    ) -> None:
        """`settings` of the client; `opening` replaces preface and SETTINGS as a whole."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(alpn))
        plain = socket.create_connection(address, timeout=WITHIN_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname="edge.test")
        self.protocol = self._socket.selected_alpn_protocol()
        self._socket.setblocking(False)
        self._unread = bytearray()
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder(max_header_list_size=1 << 24)
        self.streams: dict[int, Stream] = {}
        self.settings: dict[int, int] | None = None
        self.settings_acked = 0
        self.pongs: list[bytes] = []
        self.goaway: GoAwayFrame | None = None
        self.ended: str | None = None
        self.frames = 0
        self.kinds: dict[str, int] = {}
        self.first: Frame | None = None
        self.gives_windows = True
        self.acks_settings = True
        # What the server lets us send: increments and bytes sent by stream, 0 for the connection.
        self.granted: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self._block: tuple[int, bytearray, bool] | None = None
        self._next_stream = 1
        ours = dict(settings or {})
        if Setting.HEADER_TABLE_SIZE in ours:
            self.decoder.max_allowed_table_size = ours[Setting.HEADER_TABLE_SIZE]
        if opening is None:
            opening = PREFACE + SettingsFrame(0, settings=ours).serialize()
        self.send(opening)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # --- sending ------------------------------------------------------------

    def send(self, *parts: Frame | bytes) -> None:
        """Sends all of it, or as much as the server takes until it ends the connection."""
        data = b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)
        self.offer(data, WITHIN_S)

    def offer(self, data: bytes, within: float, *, reads: bool = True) -> int:
        """Sends as much as the server takes in the time, and answers how many bytes that were."""
        deadline = time.monotonic() + within
        view = memoryview(data)
        sent = 0
        while sent < len(view) and self.ended is None:
            if reads:
                self._fill()
            try:
                sent += self._socket.send(view[sent : sent + 65_536])
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                select.select([self._socket] if reads else [], [self._socket], [], min(left, 0.5))
            except (OSError, ssl.SSLError) as error:
                # What the server said before it closed may still be there.
                self._fill()
                self.ended = self.ended or f"closed while we sent ({type(error).__name__})"
        return sent

    def block(self, headers: Iterable[Header]) -> bytes:
        """A header block in HPACK; names and values go as they are."""
        return bytes(self.encoder.encode([(_bytes(name), _bytes(value)) for name, value in headers]))

    def new_stream(self) -> int:
        """The next stream of ours."""
        stream = self._next_stream
        self._next_stream += 2
        return stream

    def skip_to(self, stream: int) -> None:
        """Further streams are above this one."""
        self._next_stream = stream + 2

    def request(self, headers: Iterable[Header], body: bytes | None = None, *, end: bool = True) -> int:
        """Sends a request in one HEADERS frame and DATA frames that the windows are not asked for."""
        stream = self.new_stream()
        flags = ["END_HEADERS"] + (["END_STREAM"] if body is None and end else [])
        self.send(HeadersFrame(stream, self.block(headers), flags=flags))
        if body is not None:
            self.data(stream, body, end=end)
        return stream

    def data(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """DATA frames of at most 16,384 bytes."""
        pieces = [body[at : at + 16_384] for at in range(0, len(body), 16_384)] or [b""]
        for index, piece in enumerate(pieces):
            last = end and index == len(pieces) - 1
            self.send(DataFrame(stream, piece, flags=["END_STREAM"] if last else []))
            for window in (0, stream):
                self.sent[window] = self.sent.get(window, 0) + len(piece)

    def room(self, stream: int) -> int:
        """How many bytes of DATA the server's windows take now."""
        initial = (self.settings or {}).get(Setting.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
        of_stream = initial + self.granted.get(stream, 0) - self.sent.get(stream, 0)
        of_all = DEFAULT_WINDOW + self.granted.get(0, 0) - self.sent.get(0, 0)
        return min(of_stream, of_all)

    def upload(self, stream: int, body: bytes, *, end: bool = True) -> None:
        """DATA as the server's windows allow."""
        at = 0
        while at < len(body):
            self.wait(lambda: self.room(stream) > 0 or self.stream(stream).is_over, "a window to send in")
            if self.stream(stream).is_over:
                return
            piece = body[at : at + min(self.room(stream), 16_384)]
            at += len(piece)
            self.data(stream, piece, end=end and at == len(body))

    def ping(self, within: float = WITHIN_S) -> None:
        """The server answers: it has read everything before."""
        mark = struct.pack(">Q", 0x5EED_0000 + len(self.pongs))
        self.send(PingFrame(0, mark))
        self.wait(lambda: mark in self.pongs, "PING is acknowledged", within)

    # --- receiving ------------------------------------------------------------

    def stream(self, number: int) -> Stream:
        """What came on a stream so far."""
        return self.streams.setdefault(number, Stream())

    def response(self, number: int, within: float = WITHIN_S) -> Stream:
        """Waits for the end of a response, however it ends."""
        stream = self.stream(number)
        self.wait(lambda: stream.is_over, f"a whole response on stream {number}", within)
        return stream

    def wait(self, holds: Callable[[], bool], what: str, within: float = WITHIN_S) -> None:
        """Reads until the condition holds; fails when time or connection end before."""
        deadline = time.monotonic() + within
        while True:
            self.read()
            if holds():
                return
            if self.ended is not None:
                raise Failed(f"expected {what}; {self.farewell()}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"expected {what}; not within {within:.0f} s")
            self._await(left)

    def wait_end(self, within: float = WITHIN_S) -> None:
        """Waits until the server has closed the connection."""
        self.wait(lambda: self.ended is not None, "the end of the connection", within)

    def farewell(self) -> str:
        """How the connection ended, for people."""
        if self.goaway is None:
            return f"the connection ended without GOAWAY: {self.ended}"
        words = self.goaway.additional_data.decode("utf-8", "replace")
        return f"GOAWAY {name_of(self.goaway.error_code)} {words!r}, connection {self.ended or 'open'}"

    def read(self) -> None:
        """Takes every frame that is there."""
        self._fill()
        while len(self._unread) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._unread[:9])))
            if len(self._unread) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(self._unread[9 : 9 + length])))
            del self._unread[: 9 + length]
            self.frames += 1
            self.first = self.first or frame
            kind = type(frame).__name__
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            self._hear(frame)

    def _await(self, seconds: float) -> None:
        if not self._socket.pending():
            select.select([self._socket], [], [], min(seconds, 0.5))

    def _fill(self) -> None:
        while self.ended is None:
            try:
                piece = self._socket.recv(65_536)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except ssl.SSLEOFError:
                self.ended = "closed without TLS close_notify"
                return
            except OSError as error:
                self.ended = f"broken ({type(error).__name__})"
                return
            if not piece:
                self.ended = "closed"
                return
            self._unread += piece

    def _hear(self, frame: Frame) -> None:
        if self._block is not None and not isinstance(frame, ContinuationFrame):
            raise Failed(f"the server sent {type(frame).__name__} inside a header block")
        if isinstance(frame, SettingsFrame):
            self._hear_settings(frame)
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            else:
                self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame
        elif isinstance(frame, WindowUpdateFrame):
            self.granted[frame.stream_id] = self.granted.get(frame.stream_id, 0) + frame.window_increment
        elif isinstance(frame, RstStreamFrame):
            stream = self.stream(frame.stream_id)
            stream.reset = frame.error_code if stream.reset is None else stream.reset
        elif isinstance(frame, HeadersFrame):
            self._block = (frame.stream_id, bytearray(frame.data), "END_STREAM" in frame.flags)
            self._end_block(frame)
        elif isinstance(frame, ContinuationFrame):
            if self._block is None or self._block[0] != frame.stream_id:
                raise Failed("the server sent CONTINUATION without HEADERS")
            self._block[1].extend(frame.data)
            self._end_block(frame)
        elif isinstance(frame, DataFrame):
            self._hear_data(frame)
        elif isinstance(frame, PushPromiseFrame):
            raise Failed("the server pushes")

    def _hear_settings(self, frame: SettingsFrame) -> None:
        if "ACK" in frame.flags:
            self.settings_acked += 1
            return
        self.settings = {**(self.settings or {}), **frame.settings}
        if Setting.HEADER_TABLE_SIZE in frame.settings:
            self.encoder.header_table_size = frame.settings[Setting.HEADER_TABLE_SIZE]
        if self.acks_settings:
            self.send(SettingsFrame(0, flags=["ACK"]))

    def _end_block(self, frame: Frame) -> None:
        if "END_HEADERS" not in frame.flags or self._block is None:
            return
        number, block, ends = self._block
        self._block = None
        fields: Headers = []
        for name, value in self.decoder.decode(bytes(block), raw=True):
            fields.append((name.decode("latin-1"), value.decode("latin-1")))
        _check_response_fields(fields)
        stream = self.stream(number)
        status = next((value for name, value in fields if name == ":status"), None)
        if status is None:
            stream.trailers = fields
        elif status.startswith("1"):
            stream.informational.append(fields)
        else:
            if stream.headers is not None:
                raise Failed(f"two responses on stream {number}")
            stream.headers = fields
        stream.ended = stream.ended or ends

    def _hear_data(self, frame: DataFrame) -> None:
        stream = self.stream(frame.stream_id)
        stream.body += frame.data
        stream.pieces.append(len(frame.data))
        stream.ended = stream.ended or "END_STREAM" in frame.flags
        if self.gives_windows and frame.flow_controlled_length:
            self.send(WindowUpdateFrame(0, frame.flow_controlled_length))
            if not stream.ended:
                self.send(WindowUpdateFrame(frame.stream_id, frame.flow_controlled_length))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


# Fields of one connection only, which HTTP/2 has no place for (9113-8.2.2).
_OF_ONE_CONNECTION = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")


def _check_response_fields(fields: Headers) -> None:
    for name, _ in fields:
        if name != name.lower():
            raise Failed(f"9113-8.2: the server sent the name {name}")
        if name in _OF_ONE_CONNECTION:
            raise Failed(f"9113-8.2.2: the server sent {name}")
