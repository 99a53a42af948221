"""Connections that bring too much of what is not wanted, and are closed for it.

libzmq holds what a connection sends until it is read or the connection closes: messages that nobody believes, topics
that nobody publishes. It has no bound for their number, and cannot be told to close a connection; but a message tells
the descriptor that it came by, and that belongs to this process. Invariant: nothing rests on what is counted here. An
honest peer that is closed by mistake connects again by itself, and says again what was lost.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path

import zmq

MAX_CONNECTIONS = 4096
"""Connections that are counted at once; the oldest count is forgotten for a new one."""
MAX_TOPIC = 128
"""Bytes of a subscription: a name has at most 64, and ZMTP's handshake needs fewer than this too."""
MAX_SUBSCRIPTIONS = 64
"""Most subscriptions and cancellations of one connection; a spoke sends three."""
BYTES_RECEIVED = 128
"""Where Linux's `struct tcp_info` has this count."""
RECEIVE_BUFFER = 16 * 1024
"""Bytes of subscriptions that the kernel holds of one connection: they are still read when it is closed."""
TURN = 32
"""Subscriptions that are read before the other sockets, and what is due, have a turn."""


class Limit:
    """Counts messages by the connection that brought them, and closes one that brought more than `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[int, int] = {}
        """By the inode of the connection's socket: unlike its descriptor, it names no later connection."""

    def count(self, frame: zmq.Frame, weight: int = 1) -> None:
        """Count the message that this frame is of."""
        with suppress(zmq.ZMQError, OSError):  # its connection is closed already
            descriptor = int(frame.get(zmq.SRCFD))
            inode = os.fstat(descriptor).st_ino
            count = self._counts.pop(inode, 0) + weight
            self._counts[inode] = count
            if len(self._counts) > MAX_CONNECTIONS:
                del self._counts[next(iter(self._counts))]
            if count > self._most:
                _shut(descriptor)


def _shut(descriptor: int) -> None:
    """Shut a connection; libzmq reads its end and closes it. Takes no descriptor: there may be none left."""
    connection = socket.socket(fileno=descriptor)
    try:
        connection.shutdown(socket.SHUT_RDWR)
    finally:
        connection.detach()


class Unfinished:
    """Finds connections whose message does not end: libzmq holds its frames, however many, until the last one came.

    Looks at the tcp connections of one local port (on Linux). One may bring `most` bytes without a message of it being
    read: more than libzmq reads ahead, where the messages are whole.
    """

    def __init__(self, port: int, most: int) -> None:
        self._port, self._most = port, most
        self._whole: set[int] = set()
        """Descriptors that a message was read from since the last look."""
        self._since: dict[int, int] = {}
        """By the inode of a connection: the bytes that it had brought when a message of it was read."""

    def read(self, frame: zmq.Frame) -> None:
        """A whole message was read, of which this is a frame."""
        with suppress(zmq.ZMQError):
            self._whole.add(int(frame.get(zmq.SRCFD)))

    def look(self) -> int:
        """Close the connections that brought too much. Gives how many bytes they had brought."""
        closed = 0
        since, self._since = self._since, {}
        whole, self._whole = self._whole, set()
        for descriptor in _descriptors():
            with suppress(OSError):
                status = os.fstat(descriptor)
                if not stat.S_ISSOCK(status.st_mode):
                    continue
                received = self._received(descriptor)
                begin = received if descriptor in whole else since.get(status.st_ino, 0)
                self._since[status.st_ino] = begin
                if received - begin > self._most:
                    closed += received - begin
                    _shut(descriptor)
        return closed

    def _received(self, descriptor: int) -> int:
        connection = socket.socket(fileno=descriptor)
        try:
            if connection.family == socket.AF_UNIX or connection.getsockname()[1] != self._port:
                return 0
            figures = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            return int.from_bytes(figures[BYTES_RECEIVED : BYTES_RECEIVED + 8], sys.byteorder)
        finally:
            connection.detach()


def _descriptors() -> list[int]:
    """The descriptors of this process. None where the system does not list them, or has none left to do so."""
    with suppress(OSError):
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    return []


class Subscriptions:
    """What is sent to a hub's publisher: a hint that nothing rests on.

    libzmq stores each topic (`XPUB_MANUAL` does as well), and reads all that are queued in one call: so the queue has
    one place.
    """

    def __init__(self, publish: zmq.Socket[bytes]) -> None:
        """Set the options of a publisher that is not bound yet."""
        publish.setsockopt(zmq.MAXMSGSIZE, MAX_TOPIC)
        publish.setsockopt(zmq.RCVHWM, 1)
        publish.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER)
        publish.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._publish, self._limit = publish, Limit(MAX_SUBSCRIPTIONS)

    def read(self) -> None:
        """Read a few, and close a connection that sent too many."""
        with suppress(zmq.Again):
            for _ in range(TURN):
                self._limit.count(self._publish.recv(zmq.NOBLOCK, copy=False))


def give_back_memory() -> None:
    """Have the C library return what is free: it keeps freed memory of large messages for the next ones."""
    with suppress(AttributeError, OSError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)
