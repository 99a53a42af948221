"""Random numbers whose whole state is one 64-bit number, so that it travels in every fact that rests on a draw.

Invariant: equal states give equal numbers, on every machine and under every `PYTHONHASHSEED`. The generator is
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, figure 17).
"""

from __future__ import annotations

import hashlib

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15


class Dice:
    """The generator. `state` is all of it."""

    __slots__ = ("state",)

    def __init__(self, state: int) -> None:
        self.state = state

    @classmethod
    def of(cls, text: str) -> Dice:
        """From `text`."""
        return cls(int(text, 16))

    @classmethod
    def seeded(cls, seed: int) -> Dice:
        """For a run's seed: neighbouring seeds have states that have nothing in common."""
        return cls(int.from_bytes(hashlib.sha256(f"curriculum {seed}".encode()).digest()[:8], "big"))

    @property
    def text(self) -> str:
        """The state as 16 hex digits: JSON readers round integers of 64 bits."""
        return f"{self.state:016x}"

    def bits(self) -> int:
        """64 random bits."""
        self.state = z = (self.state + _STEP) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, limit: int) -> int:
        """An integer of 0 .. limit - 1; the odds differ by at most limit / 2^64."""
        return (self.bits() * limit) >> 64

    def unit(self) -> float:
        """A float of [0, 1), a multiple of 2^-53."""
        return (self.bits() >> 11) * 2.0**-53
