"""RFC 9113 chapter 6: each type of frame, what it may hold and on which stream."""

from __future__ import annotations

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from case import (
    GET,
    WINDOW_SETTING_ERROR,
    Case,
    Trial,
    breaks,
    expect,
    ignores,
    must_die,
    must_reset,
    open_stream,
    resets,
    send_parts,
    whole_request,
)
from wire import DEFAULT_WINDOW, Code, Failed, Setting, raw

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
ACK, END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
WINDOW_MAX = 2**31 - 1
PATTERN = bytes(n % 251 for n in range(1_000))
_START = b"\x82\x87\x84\x01\x09edge.test"


def setting(identifier: int, value: int) -> bytes:
    """A SETTINGS frame with one setting, valid or not."""
    return raw(SETTINGS, 0, 0, identifier.to_bytes(2, "big") + value.to_bytes(4, "big"))


def window(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE with any increment."""
    return raw(WINDOW, 0, stream, increment.to_bytes(4, "big"))


def padded_data(trial: Trial) -> None:
    connection = trial.connect()
    number = connection.request(trial.post(), end=False)
    connection.send(DataFrame(number, b"hello", pad_length=100, flags=["PADDED", "END_STREAM"]))
    expect("status", connection.response(number).status, 200)
    expect("body", trial.request_seen()["body"], "hello")


def padding_is_given_back(trial: Trial) -> None:
    """Padding counts for flow control; were it not given back, uploads of padded frames would stop."""
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    number = connection.request(trial.post(), end=False)
    for _ in range(1_000):
        connection.wait(lambda: connection.room(number) >= 257, "a window for padded frames")
        connection.send(DataFrame(number, b"x", pad_length=255, flags=["PADDED"]))
        for each in (0, number):
            connection.sent[each] = connection.sent.get(each, 0) + 257
    connection.data(number, b"", end=True)
    expect("status", connection.response(number).status, 200)
    expect("bytes", trial.request_seen()["bytes"], 1_000)


def padded_headers_with_priority(trial: Trial) -> None:
    connection = trial.connect()
    number = connection.new_stream()
    flags = ["END_HEADERS", "END_STREAM", "PADDED", "PRIORITY"]
    connection.send(
        HeadersFrame(
            number,
            connection.block(trial.get()),
            flags=flags,
            pad_length=33,
            depends_on=0,
            stream_weight=9,
            exclusive=True,
        )
    )
    expect("status", connection.response(number).status, 200)


def settings_are_acknowledged(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.settings_acked == 1, "the first SETTINGS acknowledged")
    connection.send(SettingsFrame(0, settings={Setting.INITIAL_WINDOW_SIZE: 100_000}), SettingsFrame(0))
    connection.wait(lambda: connection.settings_acked == 3, "both further SETTINGS acknowledged")


def no_push_setting(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    if (connection.settings or {}).get(Setting.ENABLE_PUSH, 0) != 0:
        raise Failed("the server sent ENABLE_PUSH 1, which clients must treat as an error")


def last_of_equal_settings(trial: Trial) -> None:
    connection = trial.connect()
    sizes = b"".join(b"\0\4" + size.to_bytes(4, "big") for size in (1, 2, 7))
    connection.gives_windows = False
    connection.send(raw(SETTINGS, 0, 0, sizes))
    number = connection.request(trial.get("?size=20"))
    stream = connection.stream(number)
    connection.wait(lambda: len(stream.body) == 7, "7 bytes, the last value")
    connection.ping()
    expect("bytes", len(stream.body), 7)


def ping_is_answered(trial: Trial) -> None:
    connection = trial.connect()
    for n in range(20):
        mark = n.to_bytes(8, "big")
        connection.send(PingFrame(0, mark))
        connection.wait(lambda: mark in connection.pongs, "the same 8 bytes")  # noqa: B023 called before it returns
    expect("answers", len(connection.pongs), 20)


def pong_is_not_answered(trial: Trial) -> None:
    connection = trial.connect()
    connection.send(PingFrame(0, b"unasked!", flags=["ACK"]))
    connection.ping()
    expect("answers", len(connection.pongs), 1)


def our_goaway(trial: Trial) -> None:
    """After our GOAWAY what runs is finished, then the server closes."""
    connection = trial.connect()
    number = connection.request(trial.post("?live=1"), end=False)
    connection.wait(lambda: connection.stream(number).headers is not None, "the head of the response")
    connection.send(GoAwayFrame(0, last_stream_id=0, error_code=Code.NO_ERROR, additional_data=b"going"))
    connection.ping()
    connection.data(number, b"still here", end=True)
    stream = connection.response(number)
    expect("body", bytes(stream.body), b"still here")
    connection.wait_end()


def tiny_windows(trial: Trial) -> None:
    """A window of one byte, opened one byte at a time, still delivers everything."""
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 1})
    number = connection.request(trial.get("?size=1000"))
    stream = connection.response(number)
    expect("body", bytes(stream.body) == PATTERN, True)
    expect("largest DATA frame", max(stream.pieces), 1)


def zero_window_then_open(trial: Trial) -> None:
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 0})
    number = connection.request(trial.get("?size=1000"))
    stream = connection.stream(number)
    connection.wait(lambda: stream.headers is not None, "HEADERS, which need no window")
    connection.ping()
    expect("bytes without a window", len(stream.body), 0)
    connection.send(setting(Setting.INITIAL_WINDOW_SIZE, 10))
    connection.gives_windows = False
    connection.wait(lambda: len(stream.body) == 10, "10 bytes after SETTINGS opened the window")
    connection.send(WindowUpdateFrame(number, 5))
    connection.wait(lambda: len(stream.body) == 15, "5 bytes more after WINDOW_UPDATE")
    connection.send(WindowUpdateFrame(number, 985))
    connection.wait(lambda: stream.ended, "the rest")
    expect("body", bytes(stream.body) == PATTERN, True)


def negative_window(trial: Trial) -> None:
    """SETTINGS may take back what was given: the window is then negative and has to be filled first."""
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 100})
    connection.gives_windows = False
    number = connection.request(trial.get("?size=1000"))
    stream = connection.stream(number)
    connection.wait(lambda: len(stream.body) == 100, "100 bytes")
    connection.send(setting(Setting.INITIAL_WINDOW_SIZE, 40), WindowUpdateFrame(number, 60))
    connection.ping()
    expect("bytes with a window of 0", len(stream.body), 100)
    connection.send(WindowUpdateFrame(number, 7))
    connection.wait(lambda: len(stream.body) >= 107, "7 bytes more")
    connection.ping()
    expect("bytes", len(stream.body), 107)


def connection_window(trial: Trial) -> None:
    """All streams together get no more than the connection's window."""
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 1 << 20})
    connection.gives_windows = False
    numbers = [connection.request(trial.get("?size=50000")) for _ in range(3)]

    def total() -> int:
        return sum(len(connection.stream(number).body) for number in numbers)

    connection.wait(lambda: total() >= DEFAULT_WINDOW, "a whole window of DATA")
    connection.ping()
    expect("bytes", total(), DEFAULT_WINDOW)
    connection.send(WindowUpdateFrame(0, 1 << 20))
    for number in numbers:
        expect("bytes", len(connection.response(number).body), 50_000)


def one_slow_stream(trial: Trial) -> None:
    """A stream whose window is shut does not hold up the others."""
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 0})
    shut = connection.request(trial.get("?size=1000"))
    connection.wait(lambda: connection.stream(shut).headers is not None, "HEADERS")
    number = connection.request(trial.get("?size=1000"))
    connection.send(WindowUpdateFrame(number, 1_000))
    expect("bytes", len(connection.response(number).body), 1_000)
    expect("bytes of the shut one", len(connection.stream(shut).body), 0)


def more_than_the_window(trial: Trial) -> None:
    """DATA beyond the server's window."""
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    connection.ping()
    number = connection.request(trial.post("?hang=1"), end=False)
    # Even windows that are given back while we send are overrun at some time.
    data = DataFrame(number, b"x" * 16_384).serialize()
    for _ in range(4_096):
        connection.send(data)
        if connection.goaway or connection.stream(number).is_over or connection.ended:
            break
        connection.read()
    must_reset(connection, number, Code.FLOW_CONTROL_ERROR)


def empty_data_without_window(trial: Trial) -> None:
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 0})
    number = connection.request(trial.get("?size=0"))
    expect("status", connection.response(number).status, 200)


def settings_overflow_a_window(trial: Trial) -> None:
    connection = trial.connect()
    number = connection.request(trial.get("?hang=1"))
    connection.send(WindowUpdateFrame(number, WINDOW_MAX - DEFAULT_WINDOW))
    connection.send(setting(Setting.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW + 1))
    must_die(connection, Code.FLOW_CONTROL_ERROR)


def block_in_odd_pieces(trial: Trial) -> None:
    connection = trial.connect()
    block = connection.block(trial.get())
    frames = [HeadersFrame(1, b"", flags=["END_STREAM"])]
    frames += [ContinuationFrame(1, bytes([byte])) for byte in block[:2]]
    connection.skip_to(1)
    send_parts(
        connection,
        trial,
        [*frames, ContinuationFrame(1, block[2:]), ContinuationFrame(1, b"", flags=["END_HEADERS"])],
    )
    expect("status", connection.response(1).status, 200)


CASES: list[Case] = [
    breaks("9113-6.1", "DATA on stream 0", Code.PROTOCOL_ERROR, raw(DATA, 0, 0, b"x")),
    breaks(
        "9113-6.1",
        "padding as long as the DATA frame",
        Code.PROTOCOL_ERROR,
        open_stream(1),
        raw(DATA, PADDED, 1, b"\5hell"),
    ),
    Case("9113-6.1", "padding is taken off", padded_data),
    Case("9113-6.1", "padding is given back to the windows", padding_is_given_back),
    breaks(
        "9113-6.2",
        "HEADERS on stream 0",
        Code.PROTOCOL_ERROR,
        raw(HEADERS, END_HEADERS | END_STREAM, 0, _START),
    ),
    breaks(
        "9113-6.2",
        "padding longer than the HEADERS frame",
        Code.PROTOCOL_ERROR,
        raw(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff" + _START),
    ),
    breaks(
        "9113-6.2",
        "a PRIORITY flag without its five bytes",
        (Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR),
        raw(HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, 1, b"\0\0"),
    ),
    Case("9113-6.2", "HEADERS with padding and priority are served", padded_headers_with_priority),
    breaks("9113-6.3", "PRIORITY on stream 0", Code.PROTOCOL_ERROR, raw(PRIORITY, 0, 0, b"\0\0\0\1\x0f")),
    resets(
        "9113-6.3",
        "PRIORITY of 4 bytes",
        Code.FRAME_SIZE_ERROR,
        1,
        open_stream(1),
        raw(PRIORITY, 0, 1, b"\0\0\0\3"),
    ),
    breaks("9113-6.4", "RST_STREAM on stream 0", Code.PROTOCOL_ERROR, raw(RST, 0, 0, b"\0\0\0\x08")),
    breaks(
        "9113-6.4", "RST_STREAM of 3 bytes", Code.FRAME_SIZE_ERROR, open_stream(1), raw(RST, 0, 1, b"\0\0\0")
    ),
    ignores(
        "9113-6.4",
        "RST_STREAM with an unknown code is a reset like any other",
        open_stream(1),
        raw(RST, 0, 1, b"\0\0\xff\xff"),
    ),
    breaks(
        "9113-6.5",
        "SETTINGS with ACK and a payload",
        Code.FRAME_SIZE_ERROR,
        raw(SETTINGS, ACK, 0, b"\0\4\0\0\0\1"),
    ),
    breaks("9113-6.5", "SETTINGS on stream 1", Code.PROTOCOL_ERROR, raw(SETTINGS, 0, 1, b"\0\4\0\0\0\1")),
    breaks("9113-6.5", "SETTINGS of 5 bytes", Code.FRAME_SIZE_ERROR, raw(SETTINGS, 0, 0, b"\0\4\0\0\0")),
    Case("9113-6.5.3", "SETTINGS are acknowledged, each once", settings_are_acknowledged),
    Case("9113-6.5.3", "of equal settings in one frame the last counts", last_of_equal_settings),
    Case("9113-6.5.2", "the server does not offer push", no_push_setting),
    breaks("9113-6.5.2", "ENABLE_PUSH 2", Code.PROTOCOL_ERROR, setting(Setting.ENABLE_PUSH, 2)),
    breaks(
        "9113-6.5.2",
        "INITIAL_WINDOW_SIZE 2^31",
        WINDOW_SETTING_ERROR,
        setting(Setting.INITIAL_WINDOW_SIZE, 2**31),
    ),
    breaks(
        "9113-6.5.2", "MAX_FRAME_SIZE 16,383", Code.PROTOCOL_ERROR, setting(Setting.MAX_FRAME_SIZE, 16_383)
    ),
    breaks("9113-6.5.2", "MAX_FRAME_SIZE 2^24", Code.PROTOCOL_ERROR, setting(Setting.MAX_FRAME_SIZE, 2**24)),
    ignores("9113-6.5.2", "an unknown setting is ignored", setting(0x7777, 1), whole_request(1), answered=1),
    ignores(
        "9113-6.5.2",
        "the smallest and largest allowed values are accepted",
        setting(Setting.MAX_FRAME_SIZE, 2**24 - 1),
        setting(Setting.ENABLE_PUSH, 0),
        setting(Setting.HEADER_TABLE_SIZE, 2**32 - 1),
        whole_request(1),
        answered=1,
    ),
    breaks(
        "9113-6.6",
        "PUSH_PROMISE from a client",
        Code.PROTOCOL_ERROR,
        open_stream(1, GET),
        raw(PUSH, END_HEADERS, 1, b"\0\0\0\2" + _START),
    ),
    Case("9113-6.7", "PING is answered with its own bytes", ping_is_answered),
    Case("9113-6.7", "PING with ACK is not answered", pong_is_not_answered),
    breaks("9113-6.7", "PING on stream 1", Code.PROTOCOL_ERROR, raw(PING, 0, 1, b"12345678")),
    breaks("9113-6.7", "PING of 7 bytes", Code.FRAME_SIZE_ERROR, raw(PING, 0, 0, b"1234567")),
    breaks("9113-6.8", "GOAWAY on stream 1", Code.PROTOCOL_ERROR, raw(GOAWAY, 0, 1, b"\0" * 8)),
    breaks("9113-6.8", "GOAWAY of 7 bytes", Code.FRAME_SIZE_ERROR, raw(GOAWAY, 0, 0, b"\0" * 7)),
    Case("9113-6.8", "after a client's GOAWAY what runs is finished", our_goaway),
    breaks("9113-6.9", "WINDOW_UPDATE of 0 on the connection", Code.PROTOCOL_ERROR, window(0, 0)),
    resets(
        "9113-6.9", "WINDOW_UPDATE of 0 on a stream", Code.PROTOCOL_ERROR, 1, open_stream(1), window(1, 0)
    ),
    breaks("9113-6.9", "WINDOW_UPDATE of 3 bytes", Code.FRAME_SIZE_ERROR, raw(WINDOW, 0, 0, b"\0\0\1")),
    breaks(
        "9113-6.9.1",
        "a connection window above 2^31-1",
        Code.FLOW_CONTROL_ERROR,
        window(0, WINDOW_MAX),
        window(0, WINDOW_MAX),
    ),
    resets(
        "9113-6.9.1",
        "a stream window above 2^31-1",
        Code.FLOW_CONTROL_ERROR,
        1,
        open_stream(1),
        window(1, WINDOW_MAX),
        window(1, WINDOW_MAX),
    ),
    Case("9113-6.9.1", "DATA beyond the server's windows is FLOW_CONTROL_ERROR", more_than_the_window),
    Case("9113-6.9.1", "windows of one byte deliver everything, byte by byte", tiny_windows),
    Case("9113-6.9.1", "a response without a body needs no window", empty_data_without_window),
    Case("9113-6.9.1", "all streams together keep to the connection's window", connection_window),
    Case("9113-6.9.1", "a stream whose window is shut holds up no other", one_slow_stream),
    Case("9113-6.9.2", "a window of 0 is opened by SETTINGS and WINDOW_UPDATE", zero_window_then_open),
    Case("9113-6.9.2", "a window that SETTINGS made negative is filled first", negative_window),
    Case(
        "9113-6.9.2",
        "INITIAL_WINDOW_SIZE that overflows a stream's window is FLOW_CONTROL_ERROR",
        settings_overflow_a_window,
    ),
    breaks(
        "9113-6.10",
        "CONTINUATION on stream 0",
        Code.PROTOCOL_ERROR,
        raw(CONTINUATION, END_HEADERS, 0, b"\x82"),
    ),
    breaks(
        "9113-6.10",
        "CONTINUATION after END_HEADERS",
        (Code.PROTOCOL_ERROR, Code.STREAM_CLOSED),
        open_stream(1),
        ContinuationFrame(1, b"\x82", flags=["END_HEADERS"]),
    ),
    breaks(
        "9113-6.10",
        "CONTINUATION of another stream",
        Code.PROTOCOL_ERROR,
        raw(HEADERS, END_STREAM, 1, _START),
        ContinuationFrame(3, b"\x82", flags=["END_HEADERS"]),
    ),
    breaks(
        "9113-6.10",
        "CONTINUATION behind DATA",
        (Code.PROTOCOL_ERROR, Code.STREAM_CLOSED),
        open_stream(1),
        DataFrame(1, b"x"),
        ContinuationFrame(1, b"\x82", flags=["END_HEADERS"]),
    ),
    Case("9113-6.10", "empty and one-byte pieces of a header block are borne", block_in_odd_pieces),
]
