"""How a message leaves a socket, and the memory it is made in so that it may leave without a copy.

Invariant: who sends does not wait, and a buffer given away is not touched again: libzmq still reads it.
"""

from __future__ import annotations

import numpy as np
import zmq

Payload = bytes | memoryview

ZERO_COPY = 65_536
"""Frames from this size on (bytes) are sent without a copy."""
OWNED = 1024 * 1024
"""Buffers from `ZERO_COPY` up to this size (bytes) belong to libzmq."""
_zeros = memoryview(np.zeros(OWNED, np.uint8).data).cast("B")


def fresh(size: int) -> memoryview:
    """Make a buffer of `size` bytes. It is cleared up to `OWNED` bytes; a larger one has undefined content.

    From `ZERO_COPY` up to `OWNED` it is a frame of libzmq's own, which is cleared (there is no other way to make one).
    Any other memory that is sent uncopied costs a message to a thread of pyzmq's, which keeps it alive until then and
    wants the interpreter lock for each: 11 of a sender's 58 us at 256 KiB (measured); above, clearing costs more.
    """
    if ZERO_COPY <= size <= OWNED:
        return zmq.Frame(_zeros[:size], copy=True).buffer
    return memoryview(bytearray(size) if size < ZERO_COPY else np.empty(size, np.uint8).data).cast("B")


def send(source: zmq.Socket[bytes], parts: tuple[Payload, ...]) -> bool:
    """Send one message without waiting; False if the socket would not take it (which its first frame decides)."""
    try:
        for part in parts[:-1]:
            source.send(_whole(part), zmq.SNDMORE | zmq.NOBLOCK, copy=len(part) < ZERO_COPY)
        source.send(_whole(parts[-1]), zmq.NOBLOCK, copy=len(parts[-1]) < ZERO_COPY)
    except zmq.Again:
        return False
    return True


def _whole(part: Payload) -> Payload | zmq.Frame:
    """The frame whose memory this is, if it is all of it: libzmq takes such a one as it is."""
    if isinstance(part, memoryview) and isinstance(part.obj, zmq.Frame) and len(part.obj) == len(part):
        return part.obj
    return part
