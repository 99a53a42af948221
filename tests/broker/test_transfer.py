from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import transfer
from broker.transfer import AHEAD, STANDSTILL, Upload, chunks_of
from tests.broker.draws import quick


class Receiver:
    """A tracker's side: chunks in order to a file; a restart forgets all that is not finished."""

    def __init__(self) -> None:
        self.generation = 0
        self.finished: bytes | None = None
        self.restart()

    def restart(self) -> None:
        self.generation += 1
        self.offer, self.chunks, self.state, self.content = 0, 0, "none", b""

    def offered(self, offer: int) -> None:
        if offer != self.offer:
            self.offer, self.chunks, self.state, self.content = offer, 0, "fetching", b""

    def chunk(self, offer: int, index: int, piece: bytes, size: int) -> None:
        if offer == self.offer and self.state == "fetching" and index == self.chunks:
            self.content += piece
            self.chunks += 1
            if len(self.content) == size:
                self.state, self.finished = "durable", self.content


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "CHUNK", 4)


@quick
@given(
    st.integers(1, 150),
    st.lists(st.sampled_from(["send", "lose", "pulse", "deafen", "second", "restart"]), max_size=80),
)
@example(100, ["send", "pulse", "send", "restart"])
@example(100, ["send", "pulse", "lose", "pulse", "second", "restart", "send", "pulse"])
def test_the_content_arrives_whole_whatever_is_lost_and_whoever_restarts(size: int, script: list[str]) -> None:
    content = bytes(range(size))
    upload, receiver, now = Upload(1, content, 0.0), Receiver(), 0.0

    def speak(*, lose: bool) -> None:
        if upload.must_offer(now) and not lose:
            receiver.offered(upload.offer)
        on_the_way = 0
        while (chunk := upload.next_chunk()) is not None:
            on_the_way += 1
            if not lose:
                receiver.chunk(upload.offer, chunk[0], bytes(chunk[1]), size)
        assert on_the_way <= AHEAD

    def hear() -> None:
        upload.on_counters(receiver.offer, receiver.chunks, receiver.state, now)

    for step in script:
        if step in ("send", "lose"):
            speak(lose=step == "lose")
        elif step == "pulse":
            hear()
        elif step == "second":
            now += STANDSTILL
            upload.stalled(now)
        elif step == "restart":
            receiver.restart()
    for _ in range(chunks_of(size) + 8):
        hear()
        now += STANDSTILL
        upload.stalled(now)
        speak(lose=False)
    hear()
    assert upload.state == "durable"
    assert receiver.finished == content
    assert upload.sha256 == hashlib.sha256(content).hexdigest()


def test_an_offer_is_said_once_a_second_until_it_is_fetched() -> None:
    upload = Upload(1, b"12345", 0.0)
    assert upload.must_offer(0.0)
    assert not upload.must_offer(0.5)
    assert upload.must_offer(1.0)
    assert upload.next_chunk() is None, "nothing is sent that nobody fetches"
    upload.on_counters(1, 0, "fetching", 1.1)
    assert not upload.must_offer(9.0)
    assert [chunk[0] for chunk in iter(upload.next_chunk, None)] == [0, 1]


def test_a_refused_offer_is_done() -> None:
    upload = Upload(2, b"12345", 0.0)
    upload.on_counters(1, 2, "durable", 0.0)
    assert not upload.done, "another offer's end is not this one's"
    upload.on_counters(2, 0, "refused", 0.0)
    assert upload.done
    upload.on_counters(2, 0, "fetching", 0.0)
    assert upload.state == "refused"


def test_the_number_of_chunks() -> None:
    assert [chunks_of(size) for size in (1, 4, 5, 8)] == [1, 1, 2, 2]
