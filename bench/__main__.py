"""`python -m bench`: measure all peers that are installed and write results.json, results.md and results.svg.

`make bench` and `make bench-quick` call this. Parses, and leaves the work to run.py and the showing to write.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from bench.machine import Bystanders, choose_cores, describe, raise_file_limit
from bench.peers import PEERS, Peer
from bench.plan import FULL, QUICK
from bench.run import Bench, as_json
from bench.write import write

HERE = Path(__file__).parent


def main() -> int:
    options = _options()
    if options.render:
        write(json.loads((options.out / "results.json").read_text()), options.out)
        return 0
    plan = QUICK if options.quick else FULL
    plan = dataclasses.replace(plan, rounds=options.rounds or plan.rounds)
    if options.cases:
        plan = dataclasses.replace(plan, cases=tuple(c for c in plan.cases if any(t in c.name for t in options.cases)))
    wanted = [peer for peer in PEERS if not options.peers or peer.name in options.peers]
    peers, skipped = _installed(wanted)
    raise_file_limit()
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(plan, peers, cores, _say)
    began, bystanders = time.monotonic(), Bystanders()
    try:
        runs = bench.run()
    except KeyboardInterrupt:
        _say("stopped; nothing was written\n")
        return 130
    results = {
        "quick": options.quick,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.monotonic() - began),
        "machine": describe(cores) | bystanders.shares(),
        "plan": {"rounds": plan.rounds, "warm_seconds": plan.warm_seconds, "window_seconds": plan.window_seconds},
        "cases": [dataclasses.asdict(case) | {"name": case.name} for case in plan.cases],
        "peers": [{"name": peer.name, "label": peer.label, "version": peer.version()} for peer in bench.peers],
        "skipped": skipped,
        "runs": as_json(runs),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    _say("")
    print(write(results, options.out))
    return 1 if any(run.failed for run in runs) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a selection within a minute, for a look while working")
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in PEERS], help="only these")
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help='only cases whose name has this in it, like "down"')
    parser.add_argument("--rounds", type=int, help="how often")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the results")
    parser.add_argument("--render", action="store_true", help="measure nothing: show what results.json holds anew")
    return parser.parse_args()


def _installed(wanted: list[Peer]) -> tuple[list[Peer], dict[str, str]]:
    skipped = {peer.name: hint for peer in wanted if (hint := peer.lacks())}
    for name, hint in skipped.items():
        print(f"skipped: {name} is not installed ({hint})")
    return [peer for peer in wanted if peer.name not in skipped], skipped


def _say(text: str) -> None:
    """One line that is written over on a terminal; a line each in a log."""
    if sys.stdout.isatty():
        text = f"\r\x1b[K{text}"
    elif text and not text.endswith("\n"):
        text += "\n"
    print(text, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
