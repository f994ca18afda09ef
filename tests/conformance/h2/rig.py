"""What runs during the suite: a certificate, Node's http server, and the proxy under test with its files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from wire import WITHIN_S, Connection, Failed

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
# The range of this part; no other part uses it.
PROXY_IP = "127.87.0.1"
UPSTREAM_IP = "127.87.0.2"
START_S = 20.0

Fact = dict[str, Any]


class Upstream:
    """Node's http server, and everything it says it has seen."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["node", str(HERE / "upstream.mjs"), UPSTREAM_IP, "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "upstream.log").open("w"),
            text=True,
        )
        self._facts: list[Fact] = []
        self._news = threading.Condition()
        self._marks = 0
        threading.Thread(target=self._listen, daemon=True).start()
        self.port: int = self.until(lambda fact: fact["kind"] == "listening", "the upstream starts")["port"]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._facts.append(json.loads(line))
                self._news.notify_all()

    def mark(self) -> int:
        """Facts from here on are later: what was seen before has been told when the answer to this request has."""
        self._marks += 1
        path = f"/barrier-mark-{self._marks}"
        with urlopen(f"http://{UPSTREAM_IP}:{self.port}{path}", timeout=WITHIN_S) as response:
            response.read()
        self.until(lambda fact: fact.get("url") == path and fact["kind"] == "request", "the mark")
        with self._news:
            return len(self._facts)

    def since(self, mark: int) -> list[Fact]:
        """What was seen after a mark."""
        with self._news:
            return self._facts[mark:]

    def until(self, wanted: Callable[[Fact], bool], what: str, mark: int = 0) -> Fact:
        """Waits for a fact."""
        deadline = time.monotonic() + WITHIN_S
        with self._news:
            while True:
                for fact in self._facts[mark:]:
                    if wanted(fact):
                        return fact
                if not self._news.wait(deadline - time.monotonic()):
                    raise Failed(f"expected of the upstream: {what}")

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Timeouts:
    """What the proxy waits for, in seconds; the defaults are beyond what any case takes."""

    head: int = 30
    keep_alive: int = 60
    client: int = 60


class Rig:
    """The proxy under test in front of the upstream, with files in a folder of its own."""

    def __init__(self, target: str, binary: Path, timeouts: Timeouts | None = None) -> None:
        self.binary = binary
        self._timeouts = timeouts or Timeouts()
        self.folder = Path(tempfile.mkdtemp(prefix="shardgate-h2-"))
        self.target = target
        self.upstream = Upstream(self.folder)
        self.address = (PROXY_IP, _free_port(PROXY_IP))
        self.certificate = _make_certificate(self.folder)
        self.log = self.folder / f"{target}.log"
        command = {"shardgate": self._shardgate, "haproxy": self._haproxy}[target](binary)
        self.process = subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT)
        self._until_it_serves()

    def connect(self, **options: Any) -> Connection:
        """A new connection to the proxy."""
        return Connection(self.address, **options)

    def must_run(self) -> None:
        """Fails when the proxy has ended."""
        if self.process.poll() is not None:
            raise Failed(f"{self.target} ended by itself: status {self.process.returncode}")

    def memory_kib(self) -> int:
        """Resident memory of the proxy."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def stop(self, *, keep: bool) -> None:
        """Stops what was started; `keep` leaves logs and files."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.upstream.stop()
        if not keep:
            shutil.rmtree(self.folder)

    def _until_it_serves(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            if self.process.poll() is not None:
                raise Failed(f"{self.target} did not start:\n{self.log.read_text()}")
            try:
                with self.connect() as connection:
                    stream = connection.request(
                        [
                            (":method", "GET"),
                            (":scheme", "https"),
                            (":authority", "edge.test"),
                            (":path", "/begin"),
                        ]
                    )
                    if connection.response(stream).status == 200:
                        return
            except (OSError, Failed):
                pass
            if time.monotonic() > deadline:
                raise Failed(f"{self.target} does not serve after {START_S:.0f} s:\n{self.log.read_text()}")
            time.sleep(0.05)

    def _shardgate(self, binary: Path) -> list[str]:
        discovery = self.folder / "discovery.toml"
        discovery.write_text(
            'live_release = "r"\n[[shards]]\nname = "s1"\nid = 1\nregion = "test"\nrelease = "r"\n'
            f'address = "{UPSTREAM_IP}:{self.upstream.port}"\n'
        )
        config = self.folder / "shardgate.toml"
        config.write_text(
            '[node]\nid = "edge"\nregion = "test"\n'
            "[frontend]\nlisten = []\nworkers = 1\n"
            f'header_timeout = "{self._timeouts.head}s"\nkeepalive_timeout = "{self._timeouts.keep_alive}s"\n'
            f'client_timeout = "{self._timeouts.client}s"\n'
            f'[[listeners]]\nname = "https"\nlisten = ["{PROXY_IP}:{self.address[1]}"]\nprotocol = "https"\nhttp2 = "on"\n'
            f'[[tls.certificates]]\ncert = "{self.certificate}"\nkey = "{self.certificate}"\n'
            f'[discovery]\nfile = "{discovery}"\n'
            '[shutdown]\ndrain = "2s"\n'
            f'[[admin]]\nlisten = "unix:{self.folder / "admin.sock"}"\nserve = ["health", "metrics"]\n'
        )
        return [str(binary), "serve", "--config", str(config)]

    def _haproxy(self, root: Path) -> list[str]:
        config = self.folder / "haproxy.cfg"
        config.write_text(
            "global\n nbthread 1\n"
            "defaults\n mode http\n option forwardfor\n option redispatch\n retries 3\n"
            f" timeout http-request {self._timeouts.head}s\n timeout http-keep-alive {self._timeouts.keep_alive}s\n"
            f" timeout connect 10s\n timeout client {self._timeouts.client}s\n timeout server 60s\n timeout tunnel 1h\n"
            f"frontend web\n bind {PROXY_IP}:{self.address[1]} ssl crt {self.certificate} alpn h2,http/1.1\n"
            " default_backend shards\n"
            f"backend shards\n http-reuse always\n server s1 {UPSTREAM_IP}:{self.upstream.port}\n"
        )
        os.environ["HAPROXY_ROOT"] = str(root)
        return [str(REPOSITORY / "tests/bench/run-haproxy"), "-db", "-f", str(config)]


def _free_port(ip: str) -> int:
    with socket.socket() as free:
        free.bind((ip, 0))
        return int(free.getsockname()[1])


def _make_certificate(folder: Path) -> Path:
    """Chain and key in one file, as HAProxy's `crt` wants it."""
    key, cert, both = folder / "edge.key", folder / "edge.crt", folder / "edge.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
        ]
        + ["-subj", "/CN=edge.test", "-addext", f"subjectAltName=DNS:edge.test,IP:{PROXY_IP}"]
        + ["-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    both.write_text(cert.read_text() + key.read_text())
    return both
