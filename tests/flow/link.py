"""A TCP connection that a test can hold up and cut: what is on the way upstream then is lost, as in a network."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Link:
    """Forwards a port of its own to `target`, and the port after it to the port after that (the hub's XPUB)."""

    def __init__(self, target: int) -> None:
        self._passing = threading.Event()
        self._passing.set()
        self._connections: list[tuple[socket.socket, socket.socket]] = []
        self._listeners = self._two_ports()
        self.port: int = self._listeners[0].getsockname()[1]
        self._acceptors = [
            threading.Thread(target=self._accept, args=(listener, target + offset), daemon=True)
            for offset, listener in enumerate(self._listeners)
        ]
        for acceptor in self._acceptors:
            acceptor.start()

    @staticmethod
    def _two_ports() -> tuple[socket.socket, socket.socket]:
        while True:
            first, second = socket.socket(), socket.socket()
            first.bind(("127.0.0.1", 0))
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
                first.listen()
                second.listen()
                return first, second
            first.close()
            second.close()

    def _accept(self, listener: socket.socket, target: int) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", target))
                self._connections.append((here, there))
                for source, sink, upward in ((here, there, True), (there, here, False)):
                    threading.Thread(target=self._pump, args=(source, sink, upward), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upward: bool) -> None:
        with suppress(OSError):
            while some := source.recv(65536):
                if upward and not self._passing.is_set():
                    self._passing.wait()
                    return  # the connection was cut meanwhile
                sink.sendall(some)

    def hold(self) -> None:
        """From now on nothing goes up any more; the sender does not notice."""
        self._passing.clear()

    def cut(self) -> None:
        """Break all connections, and let new ones pass."""
        for pair in self._connections:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._connections.clear()
        self._passing.set()

    def close(self) -> None:
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # ends the acceptor's wait, which closing alone does not
        for acceptor in self._acceptors:
            acceptor.join(5)
        for listener in self._listeners:
            listener.close()
        self.cut()
