#!/usr/bin/python3
"""HTTP/2 conformance of the running binary: RFC 9113, RFC 7541 and RFC 8441, case by case, behind a real server.

  run.py [WORD]                    only the cases whose line contains WORD
  run.py --target haproxy [WORD]   against HAProxy (HAPROXY_ROOT as tests/bench/get-haproxy unpacked it), for comparison

SHARDGATE_BIN is the binary under test (default: target/sim/shardgate). One line for each case, then their count.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import connect_cases
import definition_cases
import flood_cases
import frame_cases
import lifetime_cases
import message_cases
import smuggling_cases
import stream_cases
from case import Case, Trial
from rig import REPOSITORY, Rig
from wire import Failed

CASES: list[Case] = [
    *frame_cases.CASES,
    *stream_cases.CASES,
    *definition_cases.CASES,
    *message_cases.CASES,
    *smuggling_cases.CASES,
    *connect_cases.CASES,
    *flood_cases.CASES,
    *lifetime_cases.CASES,
]


def main() -> int:
    """Runs what was asked for; the status is 0 when everything passed."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--target", choices=("shardgate", "haproxy"), default="shardgate")
    arguments.add_argument("word", nargs="?", default="")
    asked = arguments.parse_args()
    if asked.target == "haproxy":
        binary = Path(os.environ.get("HAPROXY_ROOT", REPOSITORY / "target/tools/haproxy"))
    else:
        binary = Path(os.environ.get("SHARDGATE_BIN", REPOSITORY / "target/sim/shardgate")).resolve()
    # A stop from outside still ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [(number, case) for number, case in enumerate(CASES, 1) if asked.word in str(case)]
    if not chosen:
        print(f"no case contains {asked.word!r}")
        return 2
    try:
        rig = Rig(asked.target, binary)
    except Failed as failure:
        print(f"not ok - start: {failure}\n0 passed, 1 failed, 0 skipped")
        return 1
    failed = 0
    try:
        for number, case in chosen:
            failed += not run(rig, number, case)
    finally:
        rig.stop(keep=failed > 0)
    if failed:
        print(f"# logs: {rig.folder}")
    print(f"{len(chosen) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


def run(rig: Rig, number: int, case: Case) -> bool:
    """Runs one case and says how it went."""
    began = time.monotonic()
    trial = Trial(rig, number)
    try:
        case.body(trial)
        rig.must_run()
    except (Failed, OSError) as failure:
        print(f"not ok - {case}: {failure}", flush=True)
        return False
    except Exception:  # noqa: BLE001 a slip in the suite must not hide the other cases
        print(f"not ok - {case}: {traceback.format_exc()}", flush=True)
        return False
    finally:
        trial.close()
    print(f"ok - {case} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
