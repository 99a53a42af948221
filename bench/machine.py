"""What the figures were measured on.

Invariant: a figure is never shown without this: absolute rates move from machine to machine.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import zmq


def describe() -> dict[str, Any]:
    """Cores, cpu, memory, load, and the versions of what matters."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "pyzmq": _version("pyzmq"),
        "torch": _version("torch"),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def line(found: dict[str, Any]) -> str:
    """The description on one line."""
    load = " ".join(f"{value:.2f}" for value in found["load"])
    return (
        f"{found['cores']} cores ({found['cpu']}), {found['memory_gib']} GiB, {found['system']}, Python "
        f"{found['python']}, libzmq {found['libzmq']}, pyzmq {found['pyzmq']}, torch {found['torch']}; load {load}"
    )


def _cpu() -> str:
    for entry in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if entry.startswith("model name"):
            return entry.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
