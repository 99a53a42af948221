"""The launcher: the command line, the run file, supervision, the live dashboard, and what a run has learned.

`launcher.load(RUN_DIR)` gives the trained policies of a run. It is found lazily, as the launcher never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.loading import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from launcher.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
