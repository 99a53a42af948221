"""The simulation as a process of a run: serves on a port of its own choosing, and says where.

Invariant: it knows nothing of the run but its seed and its section; what it counted is a fact when the run ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from actors.scripted.server import Simulation
from actors.scripted.serving import start
from actors.scripted.settings import Scripted
from broker.station import Spec, Station

LOOK_SECONDS = 0.05


def main(plain: Mapping[str, Any], ending: threading.Event) -> None:
    """Run one simulated endpoint to its end."""
    spec = Spec.of(plain)
    simulation = Simulation(Scripted.model_validate(plain["settings"]), spec.seed)
    serving = Serving(simulation)
    station = Station.open(spec, ending, serves=serving.url)
    reason = "failed"
    try:
        station.doing = "serving the simulation"
        while not (station.stopping and (ending.is_set() or station.tracker.phase == "ended")):
            counts = simulation.counts
            station.rates.update({"in_flight": counts.in_flight, "answered": counts.answered})
            station.report()
            ending.wait(LOOK_SECONDS)
        station.fact("endpoint_counts", {"role": spec.role, **simulation.counts.plain()})
        reason = "the run is ending"
    finally:
        serving.close()
        flushed = station.close(reason)
    station.leave(flushed)


class Serving:
    """A server in a thread with a loop of its own, so that the role's thread is free to say how it does."""

    def __init__(self, simulation: Simulation) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._thread.start()
        self._runner, self.url = asyncio.run_coroutine_threadsafe(start(simulation), self._loop).result(10)

    def close(self) -> None:
        """Stop serving; requests under way are broken off."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
