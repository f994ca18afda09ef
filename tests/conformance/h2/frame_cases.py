"""RFC 9113 chapters 3 and 4 (the start of a connection, frames) and RFC 7541 (HPACK)."""

from __future__ import annotations

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    HeadersFrame,
    PriorityFrame,
    SettingsFrame,
)

from case import (
    FIELD_BLOCK_ERROR,
    GET,
    Case,
    Trial,
    breaks,
    expect,
    ignores,
    must_die,
    open_stream,
    values,
    whole_request,
)
from wire import PREFACE, Code, Failed, Header, Setting, Stream, raw

DATA, HEADERS, SETTINGS, CONTINUATION = 0x0, 0x1, 0x4, 0x9
END_STREAM, END_HEADERS = 0x1, 0x4
# Beyond all that is defined.
UNKNOWN_KIND = 0xEE


# --- 3 starting ----------------------------------------------------------------------------------------------------------


def alpn_chooses_h2(trial: Trial) -> None:
    connection = trial.connect(alpn=("h2", "http/1.1"))
    expect("ALPN", connection.protocol, "h2")
    trial.serves(connection)


def alpn_without_h2(trial: Trial) -> None:
    connection = trial.connect(alpn=("http/1.1",), opening=b"GET /h1 HTTP/1.1\r\nHost: edge.test\r\n\r\n")
    expect("ALPN", connection.protocol, "http/1.1")


def settings_come_first(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.first is not None, "a first frame")
    expect("the first frame", type(connection.first).__name__, "SettingsFrame")
    expect("its ACK flag", "ACK" in connection.first.flags if connection.first else None, False)


def preface_in_single_bytes(trial: Trial) -> None:
    connection = trial.connect(opening=b"")
    for byte in PREFACE + SettingsFrame(0).serialize():
        connection.send(bytes([byte]))
    trial.serves(connection)


def request_before_the_servers_settings(trial: Trial) -> None:
    connection = trial.connect(opening=b"")
    block = connection.block(trial.get())
    request = HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"])
    connection.send(PREFACE, SettingsFrame(0), request)
    expect("status", connection.response(1).status, 200)


def wrong_preface(trial: Trial) -> None:
    connection = trial.connect(opening=b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + SettingsFrame(0).serialize())
    connection.wait_end()
    # "A GOAWAY frame MAY be omitted in this case."
    if connection.goaway is not None and connection.goaway.error_code != Code.PROTOCOL_ERROR:
        raise Failed(connection.farewell())


def http1_on_h2(trial: Trial) -> None:
    connection = trial.connect(opening=f"GET {trial.path} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode() * 4)
    connection.wait_end()
    trial.nothing_arrived()


def preface_without_settings(trial: Trial) -> None:
    connection = trial.connect(opening=PREFACE)
    connection.send(HeadersFrame(1, connection.block(trial.get()), flags=["END_HEADERS", "END_STREAM"]))
    must_die(connection, Code.PROTOCOL_ERROR)


# --- 4 frames ------------------------------------------------------------------------------------------------------------


def largest_frame(trial: Trial) -> None:
    connection = trial.connect()
    number = connection.request(trial.post(), b"x" * 16_384)
    expect("status", connection.response(number).status, 200)
    expect("bytes at the upstream", trial.request_seen()["bytes"], 16_384)


def responses_keep_to_our_frame_size(trial: Trial) -> None:
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 1 << 20})
    stream = connection.response(connection.request(trial.get("?size=200000")))
    expect("bytes", len(stream.body), 200_000)
    if max(stream.pieces) > 16_384:
        raise Failed(f"a DATA frame of {max(stream.pieces)} bytes, expected at most 16384")


def block_of_five_pieces(trial: Trial) -> None:
    connection = trial.connect()
    block = connection.block(trial.get("", *[(f"x-{n}", "v" * 20) for n in range(20)]))
    # Five: more CONTINUATION frames than a block of this size needs may be taken for a flood (9113-10.5).
    size = len(block) // 5 + 1
    pieces = [block[at : at + size] for at in range(0, len(block), size)]
    frames = [HeadersFrame(1, pieces[0], flags=["END_STREAM"])]
    frames += [ContinuationFrame(1, piece) for piece in pieces[1:-1]]
    frames += [ContinuationFrame(1, pieces[-1], flags=["END_HEADERS"])]
    connection.skip_to(1)
    for frame in frames:
        connection.send(frame)
    expect("status", connection.response(1).status, 200)
    expect("the last field", "x-19" in trial.request_seen()["headers"], True)


def refused_block_still_counts(trial: Trial) -> None:
    """The dynamic table is the connection's: what a refused request puts into it, the next one may use."""
    connection = trial.connect()
    bad: list[Header] = [*trial.get("", ("x-kept", "kept")), ("connection", "close")]
    refused = connection.request(bad)
    must_reset_or_400(connection.response(refused))
    stream = connection.response(connection.request(trial.get("", ("x-kept", "kept"))))
    expect("status", stream.status, 200)
    expect("x-kept arrived", "kept" in trial.request_seen()["headers"], True)


def must_reset_or_400(stream: Stream) -> None:
    if stream.reset != Code.PROTOCOL_ERROR and stream.status != 400:
        raise Failed(f"expected a refusal; {stream}")


# --- 7541 HPACK ----------------------------------------------------------------------------------------------------------

# :method GET, :scheme https, :path /, :authority by name index 1 with a literal value.
_START = b"\x82\x87\x84\x01\x09edge.test"


def block(tail: bytes) -> bytes:
    """A request that is valid up to `tail`."""
    return raw(HEADERS, END_STREAM | END_HEADERS, 1, _START + tail)


def table_of_nothing(trial: Trial) -> None:
    """With a table of size 0 the server may use no dynamic entry; our decoder refuses any."""
    connection = trial.connect(settings={Setting.HEADER_TABLE_SIZE: 0})
    connection.wait(lambda: connection.settings_acked > 0, "SETTINGS acknowledged")
    for _ in range(3):
        trial.serves(connection)


def table_grows_and_shrinks(trial: Trial) -> None:
    connection = trial.connect()
    for size in (0, 100, 4_096, 0, 4_096):
        connection.encoder.header_table_size = size
        trial.serves(connection)


def never_indexed(trial: Trial) -> None:
    connection = trial.connect()
    path = trial.path.encode()
    fields = b"\x04" + bytes([len(path)]) + path + b"\x10\x07x-never\x011\x00\x07x-plain\x012"
    connection.send(raw(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82\x87\x01\x09edge.test" + fields))
    expect("status", connection.response(1).status, 200)
    seen = trial.request_seen()
    expect("both", values(seen, "x-never") + values(seen, "x-plain"), ["1", "2"])


def oversized_head(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    fields = trial.get("", *[(f"x-{n}", "v" * 1_000) for n in range(300)])
    data = connection.block(fields)
    pieces = [data[at : at + 16_384] for at in range(0, len(data), 16_384)]
    last = len(pieces) - 1
    frames = [HeadersFrame(1, pieces[0], flags=["END_STREAM"])]
    frames += [
        ContinuationFrame(1, p, flags=["END_HEADERS"] if n == last else []) for n, p in enumerate(pieces) if n
    ]
    connection.skip_to(1)
    connection.send(*frames)
    stream = connection.stream(1)
    connection.wait(lambda: stream.is_over or connection.ended is not None, "an answer to 300 kB of fields")
    refused = stream.status in (431, 400) or stream.reset is not None
    calm = connection.goaway is not None and connection.goaway.error_code in (
        Code.ENHANCE_YOUR_CALM,
        Code.COMPRESSION_ERROR,
        Code.PROTOCOL_ERROR,
    )
    if not refused and not calm:
        raise Failed(f"expected 431, a stream error or GOAWAY; {stream}; {connection.farewell()}")
    trial.nothing_arrived()


CASES: list[Case] = [
    Case("9113-3.2", "ALPN: h2 before http/1.1", alpn_chooses_h2),
    Case("9113-3.2", "ALPN: a client without h2 gets http/1.1", alpn_without_h2),
    Case("9113-3.4", "SETTINGS is the first frame of the server", settings_come_first),
    Case("9113-3.4", "preface and SETTINGS in single bytes are understood", preface_in_single_bytes),
    Case("9113-3.4", "requests need not wait for the server's SETTINGS", request_before_the_servers_settings),
    Case("9113-3.4", "a wrong preface ends the connection", wrong_preface),
    Case("9113-3.4", "HTTP/1.1 after ALPN h2 ends the connection and reaches nobody", http1_on_h2),
    Case("9113-3.4", "a preface without SETTINGS is PROTOCOL_ERROR", preface_without_settings),
    ignores(
        "9113-4.1",
        "frames of unknown type are ignored",
        raw(UNKNOWN_KIND, 0xFF, 0, b"12345"),
        open_stream(1, GET),
        raw(UNKNOWN_KIND, 0xFF, 1, b"12345"),
        DataFrame(1, b"", flags=["END_STREAM"]),
        answered=1,
    ),
    ignores(
        "9113-4.1",
        "undefined flags are ignored",
        raw(0x6, 0xFE, 0, b"12345678"),
        whole_request(1),
        answered=1,
    ),
    ignores(
        "9113-4.1",
        "the reserved bit is ignored",
        raw(0x6, 0, 0x8000_0000, b"12345678"),
        whole_request(1),
        answered=1,
    ),
    Case("9113-4.2", "a DATA frame of 16,384 bytes is accepted", largest_frame),
    Case(
        "9113-4.2",
        "DATA to a client is at most as large as its MAX_FRAME_SIZE",
        responses_keep_to_our_frame_size,
    ),
    breaks(
        "9113-4.2",
        "DATA above MAX_FRAME_SIZE",
        Code.FRAME_SIZE_ERROR,
        open_stream(1),
        raw(DATA, 0, 1, b"x" * 16_385),
    ),
    breaks(
        "9113-4.2",
        "HEADERS above MAX_FRAME_SIZE",
        Code.FRAME_SIZE_ERROR,
        raw(HEADERS, END_HEADERS, 1, b"\x82" * 16_385),
    ),
    breaks(
        "9113-4.2",
        "SETTINGS above MAX_FRAME_SIZE",
        Code.FRAME_SIZE_ERROR,
        raw(SETTINGS, 0, 0, b"\0\x77\0\0\0\1" * 2_731),
    ),
    Case("9113-4.3", "a header block in five CONTINUATION frames is one block", block_of_five_pieces),
    Case(
        "9113-4.3",
        "a refused request's header block still changes the dynamic table",
        refused_block_still_counts,
    ),
    breaks(
        "9113-4.3",
        "PRIORITY inside a header block",
        Code.PROTOCOL_ERROR,
        open_stream(1, GET),
        raw(HEADERS, END_STREAM, 3, _START),
        PriorityFrame(3, depends_on=0, stream_weight=15, exclusive=False),
    ),
    breaks(
        "9113-4.3",
        "HEADERS of another stream inside a header block",
        Code.PROTOCOL_ERROR,
        raw(HEADERS, END_STREAM, 1, _START),
        whole_request(3),
    ),
    breaks(
        "9113-4.3",
        "DATA inside a header block",
        Code.PROTOCOL_ERROR,
        raw(HEADERS, 0, 1, _START),
        DataFrame(1, b"x"),
    ),
    breaks(
        "9113-5.5",
        "a frame of unknown type inside a header block",
        Code.PROTOCOL_ERROR,
        raw(HEADERS, END_STREAM, 1, _START),
        ExtensionFrame(UNKNOWN_KIND, 1, flag_byte=0, body=b"x"),
    ),
    breaks("7541-2.3.3", "index 0", FIELD_BLOCK_ERROR, block(b"\x80")),
    breaks("7541-2.3.3", "an index beyond both tables", FIELD_BLOCK_ERROR, block(b"\xff\x20")),
    breaks("7541-4.2", "a table size update after a field", FIELD_BLOCK_ERROR, block(b"\x20")),
    breaks("7541-5.1", "an integer that never ends", FIELD_BLOCK_ERROR, block(b"\xff" + b"\xff" * 12)),
    breaks("7541-5.2", "a string that is longer than its block", FIELD_BLOCK_ERROR, block(b"\x40\x7f")),
    breaks(
        "7541-5.2", "Huffman padding of more than 7 bits", FIELD_BLOCK_ERROR, block(b"\x00\x01x\x82\x1f\xff")
    ),
    breaks("7541-5.2", "Huffman padding of zeros", FIELD_BLOCK_ERROR, block(b"\x00\x01x\x81\x18")),
    breaks(
        "7541-5.2", "EOS inside a Huffman string", FIELD_BLOCK_ERROR, block(b"\x00\x01x\x84\xff\xff\xff\xff")
    ),
    breaks(
        "7541-6.3",
        "a table size above HEADER_TABLE_SIZE",
        FIELD_BLOCK_ERROR,
        raw(HEADERS, END_STREAM | END_HEADERS, 1, b"\x3f\xe2\x7f" + _START),
    ),
    Case("7541-6.3", "HEADER_TABLE_SIZE 0 is honoured", table_of_nothing),
    Case("7541-6.3", "our table size updates are followed", table_grows_and_shrinks),
    Case("7541-6.2.3", "never-indexed and plain literals arrive alike", never_indexed),
    Case("9113-10.5.1", "300 kB of header fields are refused and reach nobody", oversized_head),
]
