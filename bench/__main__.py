"""`python -m bench NAME [--rounds N] [--seconds S] [--json FILE]`: side by side, in one run, medians and ratios.

`attacks`, `cartpole`, `curriculum`, `prompts`, `spread`, `start`, `staleness` and `restart` launch whole processes,
take minutes, and have options of their own (`python -m bench cartpole --help`); they are measured only when named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from bench import machine

WHOLE_RUNS = ("attacks", "cartpole", "curriculum", "spread", "start", "staleness", "restart", "prompts")


def main() -> None:
    """Run what was named (everything but whole runs, if nothing was)."""
    if sys.argv[1:] and sys.argv[1] in WHOLE_RUNS:
        importlib.import_module(f"bench.{sys.argv[1]}").command(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=("stream", "facts"), help="what to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time of each turn")
    parser.add_argument("--sizes", help="bytes of a fragment, with commas between (stream)")
    parser.add_argument("--room", type=int, default=32, help="MiB under way for each producer (stream)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe()}
    print(machine.line(found["machine"]) + "\n")
    if asked.name in (None, "stream"):
        from bench import stream

        sizes = tuple(int(size) for size in asked.sizes.split(",")) if asked.sizes else stream.SIZES
        found["stream"] = stream.main(rounds=asked.rounds, seconds=asked.seconds, sizes=sizes, room=asked.room * 2**20)
    if asked.name in (None, "facts"):
        from bench import facts

        found["facts"] = facts.main(rounds=asked.rounds, seconds=asked.seconds)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
