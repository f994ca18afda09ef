"""RFC 9113 section 10.5: peers that make work. Each flood runs beside an ordinary client on another connection, which must not
wait; the flooding connection is ended, with GOAWAY ENHANCE_YOUR_CALM when the client still hears it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from case import Case, Trial, expect
from wire import Code, Connection, Failed, Setting, raw

# Frames in one write, and how many are written at most: far more than any client has a reason for.
BURST = 200
FLOOD = 100_000
# The ordinary client's request may take so long while a flood runs.
ORDINARY_S = 1.0
# How much the proxy may grow for one flooding connection.
GROWTH_KIB = 32_768

Frames = Callable[[Connection, Trial], Iterator[bytes]]


def ended_calmly(connection: Connection) -> None:
    """GOAWAY ENHANCE_YOUR_CALM, or a reset that took it away: the server closed while we were sending."""
    connection.wait_end()
    if connection.goaway is None and connection.ended is not None and connection.ended != "closed":
        return
    if connection.goaway is None or connection.goaway.error_code != Code.ENHANCE_YOUR_CALM:
        raise Failed(f"expected GOAWAY ENHANCE_YOUR_CALM; {connection.farewell()}")


def flood(trial: Trial, frames: Frames, *, reads: bool = True, count: int = FLOOD) -> Connection:
    """Sends up to `count` frames until the server ends the connection; another client is served all the while."""
    ordinary = trial.connect()
    trial.serves(ordinary, "?ordinary=1")
    before = trial.rig.memory_kib()
    attacker = trial.connect()
    attacker.wait(lambda: attacker.settings_acked > 0, "SETTINGS acknowledged")
    supply = frames(attacker, trial)
    sent, worst = 0, 0.0
    while sent < count and attacker.ended is None and attacker.goaway is None:
        burst = b"".join(islice(supply, BURST))
        taken = attacker.offer(burst, 2.0, reads=reads)
        if reads:
            attacker.read()
        sent += BURST
        if taken < len(burst):
            break
        if sent % (BURST * 10) == 0:
            began = time.monotonic()
            trial.serves(ordinary, "?ordinary=1")
            worst = max(worst, time.monotonic() - began)
    grown = trial.rig.memory_kib() - before
    if worst > ORDINARY_S:
        raise Failed(f"an ordinary request took {worst:.1f} s beside the flood")
    if grown > GROWTH_KIB:
        raise Failed(f"the proxy grew by {grown} KiB in {sent} frames")
    trial.serves(trial.connect(), "?ordinary=1")
    return attacker


def is_calmed(name: str, frames: Frames, *, count: int = FLOOD, reads: bool = True) -> Case:
    """A flood that the server ends."""

    def body(trial: Trial) -> None:
        ended_calmly(flood(trial, frames, count=count, reads=reads))

    return Case("9113-10.5", f"{name} is ended, and nobody else waits", body)


def pings(connection: Connection, trial: Trial) -> Iterator[bytes]:
    del connection, trial
    while True:
        yield PingFrame(0, b"floodfld").serialize()


def settings(connection: Connection, trial: Trial) -> Iterator[bytes]:
    del connection, trial
    while True:
        yield SettingsFrame(0, settings={Setting.INITIAL_WINDOW_SIZE: 65_535}).serialize()


def empty_data(connection: Connection, trial: Trial) -> Iterator[bytes]:
    number = connection.new_stream()
    block = connection.block(trial.post("?hang=1"))
    yield HeadersFrame(number, block, flags=["END_HEADERS"]).serialize()
    while True:
        yield DataFrame(number, b"").serialize()


def padded_empty_data(connection: Connection, trial: Trial) -> Iterator[bytes]:
    number = connection.new_stream()
    block = connection.block(trial.post("?hang=1"))
    yield HeadersFrame(number, block, flags=["END_HEADERS"]).serialize()
    while True:
        yield raw(0x0, 0x8, number, b"\0")


def window_updates(connection: Connection, trial: Trial) -> Iterator[bytes]:
    del connection, trial
    while True:
        yield WindowUpdateFrame(0, 1).serialize()


def stream_window_updates(connection: Connection, trial: Trial) -> Iterator[bytes]:
    number = connection.new_stream()
    block = connection.block(trial.post("?hang=1"))
    yield HeadersFrame(number, block, flags=["END_HEADERS"]).serialize()
    while True:
        yield WindowUpdateFrame(number, 1).serialize()


def priorities(connection: Connection, trial: Trial) -> Iterator[bytes]:
    del connection, trial
    number = 1
    while True:
        yield PriorityFrame(number, depends_on=0, stream_weight=1, exclusive=False).serialize()
        number += 2


def unknown_frames(connection: Connection, trial: Trial) -> Iterator[bytes]:
    del connection, trial
    while True:
        yield raw(0xEE, 0, 0, b"")


def continuations(connection: Connection, trial: Trial) -> Iterator[bytes]:
    number = connection.new_stream()
    yield HeadersFrame(number, connection.block(trial.get()), flags=["END_STREAM"]).serialize()
    while True:
        yield ContinuationFrame(number, connection.block([("x-more", "v" * 100)])).serialize()


def empty_continuations(connection: Connection, trial: Trial) -> Iterator[bytes]:
    number = connection.new_stream()
    yield HeadersFrame(number, connection.block(trial.get()), flags=["END_STREAM"]).serialize()
    while True:
        yield ContinuationFrame(number, b"").serialize()


def rapid_resets(connection: Connection, trial: Trial) -> Iterator[bytes]:
    """CVE-2023-44487."""
    while True:
        number = connection.new_stream()
        block = connection.block(trial.get("?hang=1"))
        yield HeadersFrame(number, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
        yield RstStreamFrame(number, Code.CANCEL).serialize()


def made_resets(connection: Connection, trial: Trial) -> Iterator[bytes]:
    """CVE-2025-8671: the server is made to reset the streams itself, which takes them off its count as well."""
    while True:
        number = connection.new_stream()
        block = connection.block(trial.get("?hang=1"))
        yield HeadersFrame(number, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
        # A window above 2^31-1 is an error of the stream.
        yield raw(0x8, 0, number, b"\x7f\xff\xff\xff")


def malformed_requests(connection: Connection, trial: Trial) -> Iterator[bytes]:
    while True:
        number = connection.new_stream()
        block = connection.block([*trial.get("?hang=1"), ("connection", "close")])
        yield HeadersFrame(number, block, flags=["END_HEADERS", "END_STREAM"]).serialize()


def rapid_reset_at_the_shard(trial: Trial) -> None:
    """Of 20,000 requests that were reset at once the shard sees few: the connection is ended long before."""
    ended_calmly(flood(trial, rapid_resets, count=40_000))
    hung = [fact for fact in trial.arrivals() if "hang=1" in str(fact.get("url"))]
    if len(hung) > 2_000:
        raise Failed(f"{len(hung)} of the 20,000 reached the shard, expected at most 2,000")


def deaf(name: str, frames: Frames) -> Case:
    """A client that asks for answers and reads none: the server stops reading, or ends the connection; it keeps nothing."""

    def body(trial: Trial) -> None:
        flood(trial, frames, reads=False, count=10 * FLOOD)

    return Case("9113-10.5", name, body)


def responses_without_windows(trial: Trial) -> None:
    """100 responses of 1 MB that the client gives no window for do not pile up in the proxy."""
    before = trial.rig.memory_kib()
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 0})
    numbers = [connection.request(trial.get("?size=1000000")) for _ in range(100)]
    connection.wait(lambda: all(connection.stream(number).headers for number in numbers), "all heads")
    connection.ping()
    grown = trial.rig.memory_kib() - before
    if grown > GROWTH_KIB:
        raise Failed(f"the proxy grew by {grown} KiB")
    trial.serves(trial.connect())


def header_bomb(trial: Trial) -> None:
    """One field of 4 kB in the dynamic table, named 16,000 times in one block of 16 kB: 64 MB of fields."""
    before = trial.rig.memory_kib()
    connection = trial.connect()
    connection.wait(lambda: connection.settings is not None, "SETTINGS")
    value = b"v" * 3_900
    number = connection.new_stream()
    pseudo = b"\x82\x87\x84\x01\x09edge.test"
    field = b"\x40\x06x-bomb" + b"\x7f\xbd\x1d" + value
    connection.send(raw(0x1, 0x5, number, pseudo + field))
    # Whatever the answer to 4 kB of fields is, the field stands in the table now.
    connection.response(number)
    number = connection.new_stream()
    connection.send(raw(0x1, 0x5, number, pseudo + b"\xbe" * 16_000))
    stream = connection.stream(number)
    connection.wait(lambda: stream.is_over or connection.goaway is not None, "an answer to the bomb")
    if stream.status == 200:
        raise Failed("64 MB of fields were served")
    grown = trial.rig.memory_kib() - before
    if grown > GROWTH_KIB:
        raise Failed(f"the proxy grew by {grown} KiB")
    heads = [fact for fact in trial.arrivals() if len(fact.get("headers", [])) > 1_000]
    expect("bombs at the upstream", heads, [])


CASES: list[Case] = [
    Case("9113-10.5", "rapid reset is ended, and the shard sees few of it", rapid_reset_at_the_shard),
    is_calmed("a flood of streams that the server has to reset", made_resets, count=40_000),
    is_calmed("a flood of malformed requests", malformed_requests, count=40_000),
    is_calmed("a flood of CONTINUATION", continuations),
    is_calmed("a flood of empty CONTINUATION", empty_continuations),
    is_calmed("a flood of PING", pings),
    is_calmed("a flood of SETTINGS", settings),
    is_calmed("a flood of empty DATA", empty_data),
    is_calmed("a flood of DATA that is only padding", padded_empty_data),
    is_calmed("a flood of WINDOW_UPDATE on the connection", window_updates),
    is_calmed("a flood of WINDOW_UPDATE on a stream", stream_window_updates),
    is_calmed("a flood of PRIORITY", priorities),
    is_calmed("a flood of unknown frames", unknown_frames),
    deaf("PING whose answers nobody reads", pings),
    deaf("SETTINGS whose acknowledgements nobody reads", settings),
    Case(
        "9113-10.5",
        "responses that the client gives no window for do not fill the proxy",
        responses_without_windows,
    ),
    Case("9113-10.5.1", "a header block that unfolds to 64 MB is refused", header_bomb),
]
