"""Limits on what one connection may send, and closing a connection that exceeds them.

libzmq keeps messages until they are read, and stores subscriptions until their connection closes, both without a bound
on their number, and it has no call that closes a connection. But each message carries the file descriptor on which it
arrived, and that descriptor belongs to this process. Invariant: correctness does not depend on these counts. An honest
peer whose connection is closed by mistake reconnects by itself and repeats what was lost.
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
"""Most connections that are counted at the same time; a new one replaces the one whose last message is the oldest."""
MAX_TOPIC = 128
"""Most bytes of a subscription: a name has at most 64, and the messages of ZMTP's handshake fit as well."""
MAX_SUBSCRIPTIONS = 64
"""Most subscriptions and cancellations from one connection; a spoke sends three."""
BYTES_RECEIVED = 128
"""Offset of this field in Linux's `struct tcp_info`."""
RECEIVE_BUFFER = 16 * 1024
"""Bytes that the kernel buffers for one connection: libzmq still reads them after the connection is shut down."""
TURN = 32
"""Most subscriptions that are read before the reactor serves other sockets and timers."""


class Limit:
    """Counts the messages of each connection, and closes a connection that sent more than `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[int, int] = {}
        """By the inode of the connection's socket: a later connection may reuse the descriptor, but not the inode."""

    def count(self, frame: zmq.Frame, weight: int = 1) -> None:
        """Count the message that this frame belongs to."""
        with suppress(zmq.ZMQError, OSError):  # the connection is already closed
            descriptor = int(frame.get(zmq.SRCFD))
            inode = os.fstat(descriptor).st_ino
            count = self._counts.pop(inode, 0) + weight
            self._counts[inode] = count
            if len(self._counts) > MAX_CONNECTIONS:
                del self._counts[next(iter(self._counts))]
            if count > self._most:
                _shut(descriptor)


def _shut(descriptor: int) -> None:
    """Shut a connection down; libzmq then reads its end and closes it. Opens no descriptor: none may be left."""
    connection = socket.socket(fileno=descriptor)
    try:
        connection.shutdown(socket.SHUT_RDWR)
    finally:
        connection.detach()


class Unfinished:
    """Closes tcp connections of one local port whose message never ends: libzmq keeps its frames until the last one.

    A connection may send `most` bytes without a message of it being read: more than libzmq reads ahead of whole
    messages. Linux only.
    """

    def __init__(self, port: int, most: int) -> None:
        self._port, self._most = port, most
        self._whole: set[int] = set()
        """Descriptors from which a message was read since the last look."""
        self._since: dict[int, int] = {}
        """By the inode of a connection: the bytes that it had sent when a message of it was last read."""

    def read(self, frame: zmq.Frame) -> None:
        """Note that the whole message to which this frame belongs was read."""
        with suppress(zmq.ZMQError):
            self._whole.add(int(frame.get(zmq.SRCFD)))

    def look(self) -> int:
        """Close the connections that sent too much. Returns how many bytes they had sent."""
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
    """List the descriptors of this process. Empty if the system cannot list them."""
    with suppress(OSError):
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    return []


class Subscriptions:
    """Reads the subscriptions that spokes send to a hub's publisher, only to limit their number.

    libzmq stores each topic (with `XPUB_MANUAL` as well), and one call reads everything that is queued: so the queue
    has one place.
    """

    def __init__(self, publish: zmq.Socket[bytes]) -> None:
        """Set the options of a publisher that is not yet bound."""
        publish.setsockopt(zmq.MAXMSGSIZE, MAX_TOPIC)
        publish.setsockopt(zmq.RCVHWM, 1)
        publish.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER)
        publish.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._publish, self._limit = publish, Limit(MAX_SUBSCRIPTIONS)

    def read(self) -> None:
        """Read at most `TURN` subscriptions, and close a connection that sent too many."""
        with suppress(zmq.Again):
            for _ in range(TURN):
                self._limit.count(self._publish.recv(zmq.NOBLOCK, copy=False))


def give_back_memory() -> None:
    """Ask the C library to return free memory to the system: it keeps the memory of large messages for later ones."""
    with suppress(AttributeError, OSError):  # only glibc has this call
        ctypes.CDLL(None).malloc_trim(0)
