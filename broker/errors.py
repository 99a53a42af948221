"""The errors of Headrace, as one tree.

    HeadraceError
    ├── RequestError          what was asked for is wrong: exit status 2, nothing started
    │   └── UnsupportedSpace
    ├── RunError              the run failed: exit status 1, with a reason
    │   ├── Superseded        a newer incarnation holds this role's name
    │   ├── Unreachable       a hub did not answer within its deadline
    │   └── DamagedCheckpoint
    └── WireError             a frame that is not believed; counted and quarantined, never fatal

Invariant: the text of a RequestError names what is wrong, where, and how to mend it; it is shown as it is.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The root: everything that Headrace itself raises."""


class RequestError(HeadraceError):
    """The request was wrong (a run file, an option, an environment): exit status 2."""


class UnsupportedSpace(RequestError):  # noqa: N818 - reads as what happened
    """An observation or action space that no policy of ours can take."""


class RunError(HeadraceError):
    """The run failed: exit status 1."""


class Superseded(RunError):  # noqa: N818 - reads as what happened
    """A newer incarnation of the same name has said Hello; this one must end."""


class Unreachable(RunError):  # noqa: N818 - reads as what happened
    """A hub did not answer within its deadline."""


class DamagedCheckpoint(RunError):  # noqa: N818 - reads as what happened
    """A checkpoint whose checksum or content is wrong."""


def brief(value: object, limit: int = 40) -> str:
    """Describe a value from elsewhere for a message: short texts and numbers by value, everything else by its type.

    `str` of such a value could recurse through a thousand levels, or print megabytes.
    """
    if isinstance(value, str):
        return repr(value[:limit])
    if value is None or isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**limit else "a long integer"
    return type(value).__name__


class WireError(HeadraceError):
    """A frame that is not believed. `reason` is a short word that quarantine counts by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
