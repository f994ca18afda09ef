"""RFC 9113 chapter 5: the states of streams, their numbers, how many there are, flow control, priority, errors."""

from __future__ import annotations

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from case import GET, POST, Case, Trial, breaks, expect, ignores, must_die, open_stream, resets, whole_request
from wire import Code, Failed, Setting, raw

CLOSED = (Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)
HANG = [*POST[:3], (":path", "{path}?hang=1")]


def after_end_of_both(kind: str) -> Case:
    """What comes on a stream that both sides have ended."""

    def body(trial: Trial) -> None:
        connection = trial.connect()
        number = connection.request(trial.get())
        connection.response(number)
        if kind == "DATA":
            connection.send(DataFrame(number, b"late"))
        else:
            connection.send(
                HeadersFrame(number, connection.block(trial.get()), flags=["END_HEADERS", "END_STREAM"])
            )
        # "An endpoint MUST treat [them] as a connection error of type STREAM_CLOSED", or as a stream error a while later.
        connection.wait(
            lambda: connection.goaway is not None or connection.streams[number].reset is not None,
            f"{kind} on a closed stream is refused",
        )
        code = connection.goaway.error_code if connection.goaway else connection.streams[number].reset
        if code not in CLOSED:
            raise Failed(f"expected STREAM_CLOSED; {connection.farewell()}")
        expect("requests at the upstream", len([f for f in trial.arrivals() if f["kind"] == "head"]), 1)

    return Case("9113-5.1", f"closed: {kind} after END_STREAM of both sides is STREAM_CLOSED", body)


def half_closed_still_listens(trial: Trial) -> None:
    """WINDOW_UPDATE, PRIORITY and RST_STREAM are allowed on a stream that we have ended."""
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 0})
    number = connection.request(trial.get("?size=5"))
    connection.send(PriorityFrame(number, depends_on=0, stream_weight=7, exclusive=False))
    connection.send(WindowUpdateFrame(number, 100))
    expect("bytes", len(connection.response(number).body), 5)


def late_frames_after_response(trial: Trial) -> None:
    """The server may have to bear these for a while: they were on their way."""
    connection = trial.connect()
    number = connection.request(trial.get())
    connection.response(number)
    connection.send(WindowUpdateFrame(number, 1), RstStreamFrame(number, Code.CANCEL))
    connection.send(PriorityFrame(number, depends_on=0, stream_weight=7, exclusive=False))
    trial.serves(connection)


def reset_ends_only_itself(trial: Trial) -> None:
    connection = trial.connect()
    waiting = connection.request(trial.get("?hang=1"))
    trial.request_seen()
    connection.send(RstStreamFrame(waiting, Code.CANCEL))
    trial.serves(connection)
    trial.arrived(lambda fact: fact["kind"] == "abandoned", "the abandoned request is closed at the shard")
    if connection.streams.get(waiting) and connection.streams[waiting].reset is not None:
        raise Failed("9113-5.4.2: RST_STREAM was answered with RST_STREAM")


def skipped_numbers(trial: Trial) -> None:
    connection = trial.connect()
    trial.serves(connection)
    connection.skip_to(1_001)
    trial.serves(connection)


def many_at_once(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    limit = (connection.settings or {}).get(Setting.MAX_CONCURRENT_STREAMS)
    if limit is None or not 100 <= limit <= 10_000:
        raise Failed(f"MAX_CONCURRENT_STREAMS is {limit}, expected 100 to 10,000")
    numbers = [connection.request(trial.get(f"?n={n}")) for n in range(100)]
    for number in numbers:
        expect("status", connection.response(number).status, 200)


def too_many_at_once(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    limit = (connection.settings or {})[Setting.MAX_CONCURRENT_STREAMS]
    for _ in range(limit + 1):
        connection.request(trial.post("?hang=1"), end=False)
    beyond = connection.stream(2 * limit + 1)
    connection.wait(
        lambda: beyond.is_over or connection.goaway is not None, "the stream above the limit is refused"
    )
    code = connection.goaway.error_code if connection.goaway else beyond.reset
    if code not in (Code.REFUSED_STREAM, Code.PROTOCOL_ERROR):
        raise Failed(f"expected REFUSED_STREAM or PROTOCOL_ERROR; {beyond}; {connection.farewell()}")


def place_of_a_reset_stream(trial: Trial) -> None:
    """A stream that was reset takes no place any more."""
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    for _ in range(3):
        numbers = [connection.request(trial.get("?hang=1")) for _ in range(40)]
        connection.ping()
        for number in numbers:
            connection.send(RstStreamFrame(number, Code.CANCEL))
        connection.ping()
    trial.serves(connection)


def goaway_tells_the_last_stream(trial: Trial) -> None:
    connection = trial.connect()
    for _ in range(3):
        trial.serves(connection)
    connection.send(raw(0x0, 0, 0, b"DATA on stream 0"))
    must_die(connection, Code.PROTOCOL_ERROR)
    expect("last stream", connection.goaway.last_stream_id if connection.goaway else None, 5)


def request_body_in_windows(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    body = bytes(range(256)) * 4_096
    number = connection.request(trial.post(), end=False)
    connection.upload(number, body)
    expect("status", connection.response(number).status, 200)
    expect("bytes", trial.request_seen()["bytes"], len(body))


def unread_upload_is_held_back(trial: Trial) -> None:
    """A shard that does not read: the client's window runs dry instead of our memory filling."""
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    number = connection.request(trial.get("?live=1"), end=False)
    connection.gives_windows = False
    connection.wait(lambda: connection.stream(number).headers is not None, "the head of the response")
    sent = 0
    # The upstream echoes, we give no window for the echo: everything between fills up to its bounds.
    while sent < 64 << 20:
        connection.read()
        room = connection.room(number)
        if room <= 0:
            try:
                connection.wait(lambda: connection.room(number) > 0, "a window", 2.0)
            except Failed:
                break
            continue
        piece = min(room, 16_384)
        connection.data(number, b"x" * piece)
        sent += piece
    if sent >= 64 << 20:
        raise Failed("64 MiB were taken although nobody read them")
    trial.serves(trial.connect())


CASES: list[Case] = [
    breaks("9113-5.1", "idle: DATA", (Code.PROTOCOL_ERROR, Code.STREAM_CLOSED), DataFrame(1, b"x")),
    breaks("9113-5.1", "idle: RST_STREAM", Code.PROTOCOL_ERROR, RstStreamFrame(1, Code.CANCEL)),
    breaks("9113-5.1", "idle: WINDOW_UPDATE", Code.PROTOCOL_ERROR, WindowUpdateFrame(1, 100)),
    breaks(
        "9113-5.1",
        "idle: CONTINUATION",
        Code.PROTOCOL_ERROR,
        ContinuationFrame(1, b"\x82", flags=["END_HEADERS"]),
    ),
    ignores(
        "9113-5.1",
        "idle: PRIORITY is allowed",
        PriorityFrame(1, depends_on=0, stream_weight=7, exclusive=False),
        whole_request(3),
        answered=3,
    ),
    resets(
        "9113-5.1",
        "half-closed (remote): DATA",
        CLOSED,
        1,
        open_stream(1, HANG, "END_STREAM"),
        DataFrame(1, b"x"),
    ),
    resets(
        "9113-5.1",
        "half-closed (remote): HEADERS",
        CLOSED,
        1,
        open_stream(1, HANG, "END_STREAM"),
        open_stream(1, GET, "END_STREAM"),
    ),
    breaks(
        "9113-5.1",
        "half-closed (remote): CONTINUATION",
        CLOSED,
        open_stream(1, HANG, "END_STREAM"),
        ContinuationFrame(1, b"\x82", flags=["END_HEADERS"]),
    ),
    Case(
        "9113-5.1", "half-closed (remote): WINDOW_UPDATE and PRIORITY are allowed", half_closed_still_listens
    ),
    resets(
        "9113-5.1",
        "closed: DATA after our RST_STREAM",
        CLOSED,
        1,
        open_stream(1, HANG),
        RstStreamFrame(1, Code.CANCEL),
        DataFrame(1, b"x"),
    ),
    resets(
        "9113-5.1",
        "closed: HEADERS after our RST_STREAM",
        CLOSED,
        1,
        open_stream(1, HANG),
        RstStreamFrame(1, Code.CANCEL),
        open_stream(1, GET, "END_STREAM"),
    ),
    after_end_of_both("DATA"),
    after_end_of_both("HEADERS"),
    Case("9113-5.1", "closed: WINDOW_UPDATE, RST_STREAM and PRIORITY are borne", late_frames_after_response),
    Case(
        "9113-5.4.2",
        "RST_STREAM ends its request at the shard, is not answered, and nothing else ends",
        reset_ends_only_itself,
    ),
    breaks("9113-5.1.1", "an even stream number", Code.PROTOCOL_ERROR, whole_request(2)),
    breaks("9113-5.1.1", "a number below an earlier one", CLOSED, whole_request(5), whole_request(3)),
    Case("9113-5.1.1", "numbers may be skipped", skipped_numbers),
    Case("9113-5.1.2", "100 requests at once are answered", many_at_once),
    Case("9113-5.1.2", "a stream above MAX_CONCURRENT_STREAMS is refused", too_many_at_once),
    Case("9113-5.1.2", "streams that were reset take no place", place_of_a_reset_stream),
    Case("9113-5.2", "1 MiB of request body arrives in the server's windows", request_body_in_windows),
    Case("9113-5.2.2", "what nobody reads is not taken without bound", unread_upload_is_held_back),
    ignores(
        "9113-5.3.2",
        "PRIORITY that depends on itself is ignored, or an error of its stream as in RFC 7540",
        raw(0x2, 0, 1, b"\0\0\0\1\x0f"),
        whole_request(3),
        answered=3,
    ),
    Case("9113-5.4.1", "GOAWAY tells the last stream", goaway_tells_the_last_stream),
]
