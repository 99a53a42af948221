"""The verdict on a run that has reached its end: whether it learned something and kept it.

Invariant: the verdict depends only on committed facts, so that it is the same if the tracker fell at the end.
"""

from __future__ import annotations

from tracker.chronicle import version_text
from tracker.standings import CAUSES, Standings
from tracker.tallies import PolicyTally

UNSOUND_UPDATES = 10
"""A policy has failed if its last so many updates were faulty, or all of its updates if they are fewer."""


def shortfall(standings: Standings, *, finished: bool) -> str:
    """Return why this run failed although it reached its end; empty if it did not fail.

    `finished`: every policy said that it has nothing left to do, so a run without a new version is no failure. An
    interrupted run may have learned nothing yet; but lost versions and refused experience are failures there too.
    """
    policies = sorted(standings.policies.items())
    faults = [
        standings.ending_fault,
        *(_unkept(name, tally) for name, tally in policies),
        *(_unsound(name, tally) for name, tally in policies),
        _nothing_learned(standings, finished=finished),
    ]
    return next((fault for fault in faults if fault), "")


def _unkept(name: str, tally: PolicyTally) -> str:
    """Say why the last version is lost. The loss of an earlier life's version was counted when the next life began."""
    if not tally.updates or tally.version[0] < tally.life or (tally.checkpoint or (0, 0)) >= tally.version:
        return ""
    newest = "no version" if tally.checkpoint is None else version_text(tally.checkpoint)
    return f"version {version_text(tally.version)} of {name} is in no checkpoint; the newest checkpoint has {newest}"


def _unsound(name: str, tally: PolicyTally) -> str:
    if not tally.unsound or tally.unsound < min(tally.updates, UNSOUND_UPDATES):
        return ""
    return f"nothing was learned: after each of the last {tally.unsound:,} updates of {name} {tally.fault}"


def _nothing_learned(standings: Standings, *, finished: bool) -> str:
    faults = standings.faults
    cause = next((faults[kind] for kind in CAUSES if kind in faults), "")
    policies = standings.policies
    for name, tally in sorted(policies.items()):
        refused = tally.fragments["refused"]
        if refused and not tally.fragments["consumed"] and not tally.updates:
            return f"nothing was learned: {name} refused all of its {refused:,} fragments: {cause or tally.refusal}"
    if finished or any(tally.updates for tally in policies.values()):
        return ""
    if "exited" in faults:
        return f"nothing was learned: {cause}"
    if standings.stop_requested is not None:
        return ""
    used = sum(tally.fragments["consumed"] for tally in policies.values())
    if used or standings.env_steps:
        return f"nothing was learned: {used:,} fragments were used, too few for an update; give the run longer"
    return "" if standings.outcomes else f"nothing was played{f': {cause}' if cause else ''}"
