"""An actor of a pool, as a process: makes tasks when it is asked to, draws them, and says what came of them.

    python player.py NAME ADDRESS TOKEN_FILE STOP_FILE

When STOP_FILE appears it flushes, and prints as JSON what it minted and what it said of each task.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path

from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity

COUNT = 16
REPEAT = 0.5


def main() -> None:
    name, address, token, stop = sys.argv[1:]
    reactor = Reactor(name)
    identity = Identity(Path(token).read_text().strip(), name, new_incarnation())
    spoke = TrackerSpoke(reactor, identity, "actor", address)
    minted: list[str] = []
    said: dict[str, list[float]] = {}
    errors = 0
    draws: list[int] = []
    request, asked = 0, 0.0
    while not Path(stop).exists():
        if not request:
            request, asked = spoke.request_tasks(COUNT, generate=True), time.monotonic()
        elif time.monotonic() - asked > REPEAT:
            spoke.repeat_request(request, COUNT, generate=True)
            asked = time.monotonic()
        answers = [answer for answer in spoke.take_assignments() if answer.request == request]
        if not answers:
            time.sleep(0.002)
            continue
        request = 0
        for task in answers[0].tasks:
            if task.generate:
                names = [f"{task.task}.{index}" for index in range(json.loads(task.body)["generate"])]
                label = f"level {len(minted) % 3}"
                tasks = [{"task": made, "label": label, "body": {}} for made in names]
                spoke.fact("mint", {"tasks": tasks, "generation": task.task})
                minted += names
                continue
            assert task.draw is not None
            draws.append(task.draw)
            if task.draw % 29 == 0:
                errors += 1
                body = {"task": task.task, "traceback": "E: no", "permanent": task.draw % 2 == 0, "draw": task.draw}
                spoke.fact("rollout_error", body)
                continue
            score = zlib.crc32(f"{task.task} {task.draw}".encode()) % 1025 / 1024
            said.setdefault(task.task, []).append(score)
            spoke.fact("outcome", {"task": task.task, "score": score, "draw": task.draw})
    flushed = spoke.flush(30.0)
    spoke.farewell("done", 1.0)
    reactor.close()
    print(
        json.dumps({"flushed": flushed, "minted": minted, "said": said, "errors": errors, "draws": draws}), flush=True
    )


if __name__ == "__main__":
    main()
