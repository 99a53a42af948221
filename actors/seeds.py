"""Seeds of streams that must not march in step. Invariant: the same path gives the same seed, on any machine."""

from __future__ import annotations

import numpy as np

EVALUATION = 2**32 - 1
"""Where an actor has its index, plus 1."""


def seed_of(*path: int) -> int:
    """32 bits for the stream that this path of whole numbers names; a trailing 0 is the same as none."""
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def actor_seed(seed: int, index: int, attempt: int) -> int:
    """Of one attempt of one actor of the run `seed`: one that is started again does not play again what it played."""
    return seed_of(seed, index + 1, attempt)


def evaluation_seed(seed: int) -> int:
    """Of an evaluation of the run `seed`: none of an actor's."""
    return seed_of(seed, EVALUATION)


def environment_seed(seed: int, copy: int) -> int:
    """Return the seed of one copy of the environment of an actor or an evaluation, however many copies it has.

    The seed fits a C int, in which many simulators keep it, also when a vector form counts up from it for its copies.
    """
    return seed_of(seed, copy) % (2**31 - 2**16)


def policy_seed(seed: int, place: int) -> int:
    """Of the actions of the policy at this place of the plan. Policies that drew alike would explore alike."""
    return seed_of(seed, place, 1)
