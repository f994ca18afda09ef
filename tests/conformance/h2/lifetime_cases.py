"""How long connections and streams live that do nothing, and how they end with the process (RFC 9113 sections 5.1, 6.8 and 9.1). Each
case has a proxy of its own, whose timeouts are short."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from hyperframe.frame import DataFrame, HeadersFrame

from case import Case, Trial, expect
from connect_cases import open_tunnel
from rig import Rig, Timeouts
from wire import Code, Connection, Failed, Setting

SHORT = Timeouts(head=2, keep_alive=3, client=4)
# The sweep for timeouts and the goodbye of a connection take so much longer.
LATE_S = 4.0


def with_short_timeouts(section: str, name: str, body: Callable[[Trial], None]) -> Case:
    """A case before a proxy of its own."""

    def run(trial: Trial) -> None:
        rig = Rig(trial.rig.target, trial.rig.binary, SHORT)
        own = Trial(rig, 1)
        try:
            body(own)
        finally:
            own.close()
            rig.stop(keep=False)

    return Case(section, name, run)


def ends_between(connection: Connection, earliest: float, code: Code | None = Code.NO_ERROR) -> None:
    """The server ends the connection, not before `earliest` and not much later, with GOAWAY when `code` is given."""
    began = time.monotonic()
    connection.wait_end(earliest + LATE_S)
    took = time.monotonic() - began
    # Clocks are coarse, and the connection was there before we looked.
    if took < earliest - 1.0:
        raise Failed(f"ended after {took:.1f} s, expected {earliest:.1f}")
    if code is not None and (connection.goaway is None or connection.goaway.error_code != code):
        raise Failed(f"expected GOAWAY {code.name}; {connection.farewell()}")


def no_preface(trial: Trial) -> None:
    connection = trial.connect(opening=b"")
    # It would stand where the preface has to.
    connection.acks_settings = False
    ends_between(connection, SHORT.head, None)


def no_request(trial: Trial) -> None:
    ends_between(trial.connect(), SHORT.head)


def idle(trial: Trial) -> None:
    connection = trial.connect()
    trial.serves(connection)
    ends_between(connection, SHORT.keep_alive)
    expect("last stream", connection.goaway.last_stream_id if connection.goaway else None, 1)


def pings_are_no_requests(trial: Trial) -> None:
    """A connection without streams ends in its time, however alive its client is."""
    connection = trial.connect()
    trial.serves(connection)
    deadline = time.monotonic() + SHORT.keep_alive + LATE_S
    while connection.ended is None and time.monotonic() < deadline:
        try:
            connection.ping()
            connection.wait(lambda: False, "nothing", 0.2)
        except Failed:
            pass
    if connection.ended is None or connection.goaway is None:
        raise Failed(f"expected the end of an idle connection; {connection.farewell()}")


def unfinished_block(trial: Trial) -> None:
    connection = trial.connect()
    connection.wait(lambda: connection.settings_acked > 0, "SETTINGS acknowledged")
    connection.send(HeadersFrame(1, connection.block(trial.get())[:5], flags=["END_STREAM"]))
    ends_between(connection, SHORT.head, None)
    trial.nothing_arrived()


def slow_body(trial: Trial) -> None:
    """A body that stops coming: its request ends, the connection and its other streams do not."""
    connection = trial.connect()
    number = connection.request(trial.post("", ("content-length", "1000")), end=False)
    connection.send(DataFrame(number, b"only this"))
    stream = connection.stream(number)
    connection.wait(lambda: stream.is_over, "the end of the stream", SHORT.client + LATE_S)
    if stream.status not in (None, 408) or (stream.status is None and stream.reset is None):
        raise Failed(f"expected 408 or RST_STREAM; {stream}")
    trial.serves(connection)
    heads = [fact for fact in trial.facts() if fact["kind"] == "request" and fact["method"] == "POST"]
    expect("whole requests at the upstream", heads, [])


def shut_window(trial: Trial) -> None:
    """A window that is never opened: the stream ends, and the shard is let go."""
    connection = trial.connect(settings={Setting.INITIAL_WINDOW_SIZE: 0})
    number = connection.request(trial.get("?size=64000000"))
    stream = connection.stream(number)
    connection.wait(
        lambda: stream.reset is not None or connection.ended is not None,
        "the end of a stream that its client does not read",
        SHORT.client + LATE_S,
    )
    trial.arrived(
        lambda fact: fact["kind"] == "closed" and "size=" in str(fact["url"]), "the shard is let go"
    )


def open_stream_is_work(trial: Trial) -> None:
    """A connection with a request at a slow shard is not idle: BOSH polls for a minute."""
    connection = trial.connect()
    number = connection.request(trial.get("?hang=1"))
    try:
        connection.wait(lambda: connection.goaway is not None or connection.stream(number).is_over, "", 6.0)
    except Failed:
        trial.serves(connection)
        return
    raise Failed(f"ended while the shard was at work; {connection.stream(number)}; {connection.farewell()}")


def silent_tunnel(trial: Trial) -> None:
    """A tunnel that is silent for longer than requests may be is none of their business."""
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    try:
        connection.wait(lambda: connection.goaway is not None or tunnel.stream.is_over, "", 6.0)
    except Failed:
        tunnel.echo(b"still here")
        return
    raise Failed(f"the tunnel ended; {tunnel.stream}; {connection.farewell()}")


def drain(trial: Trial) -> None:
    """SIGTERM: GOAWAY tells the client to go elsewhere, what runs is finished."""
    connection = trial.connect()
    number = connection.request(trial.post("?live=1"), end=False)
    stream = connection.stream(number)
    connection.wait(lambda: stream.headers is not None, "the head of the response")
    trial.rig.process.send_signal(signal.SIGTERM)
    connection.wait(lambda: connection.goaway is not None, "GOAWAY")
    expect("code", connection.goaway.error_code if connection.goaway else None, Code.NO_ERROR)
    connection.send(DataFrame(number, b"finished all the same", flags=["END_STREAM"]))
    expect("body", bytes(connection.response(number).body), b"finished all the same")
    connection.wait_end()


def drain_tunnel(trial: Trial) -> None:
    """A tunnel of a node that ends is ended: its client finds another node."""
    connection = trial.connect()
    tunnel = open_tunnel(trial, connection)
    tunnel.echo(b"hello")
    trial.rig.process.send_signal(signal.SIGTERM)
    connection.wait(
        lambda: tunnel.stream.is_over or connection.ended is not None, "the end of the tunnel", 40.0
    )
    trial.arrived(lambda fact: fact["kind"] == "gone", "the tunnel ends at the shard")


CASES: list[Case] = [
    with_short_timeouts("9113-3.4", "a connection without a preface ends", no_preface),
    with_short_timeouts("9113-9.1", "a connection without a request ends with GOAWAY", no_request),
    with_short_timeouts("9113-9.1", "an idle connection ends with GOAWAY and its last stream", idle),
    with_short_timeouts("9113-9.1", "PING does not keep an idle connection", pings_are_no_requests),
    with_short_timeouts(
        "9113-4.3", "a header block that is never finished ends its connection", unfinished_block
    ),
    with_short_timeouts("9113-8.1", "a body that stops coming ends its stream alone", slow_body),
    with_short_timeouts("9113-6.9", "a window that is never opened ends its stream", shut_window),
    with_short_timeouts("9113-9.1", "a request at work keeps its connection", open_stream_is_work),
    with_short_timeouts("8441-5", "a silent tunnel keeps its connection", silent_tunnel),
    with_short_timeouts("9113-6.8", "a node that ends says GOAWAY and finishes what runs", drain),
    with_short_timeouts("8441-5", "a node that ends ends its tunnels", drain_tunnel),
]
