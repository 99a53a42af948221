from __future__ import annotations

from typing import Any

from launcher.progress import Progress

NOW = {"tracker": 1, "learner-p": 2, "actor-0": 3, "endpoint-a": 4, "endpoint-b": 5}


def document(stored: int = 0, answered: int = 0, **progress: int) -> dict[str, Any]:
    roles = [
        {"name": name, "kind": name.partition("-")[0], "pid": pid, "progress": progress.get(name[:5], 0), "rates": {}}
        for name, pid in NOW.items()
    ]
    roles[3]["rates"] = {"answered": answered}
    return {"roles": roles, "facts": {"stored": stored}}


def test_who_does_what_it_is_there_for_makes_progress() -> None:
    progress = Progress()
    assert progress.observe(document(10, 7, learn=5, actor=9), NOW) == []
    assert progress.observe(document(10, 7, learn=5, actor=9), NOW) == []
    assert progress.observe(document(11, 7, learn=5, actor=9), NOW) == ["tracker"]
    assert progress.observe(document(10, 7, learn=6, actor=9), NOW) == ["learner-p"]
    assert progress.observe(document(10, 7, learn=5, actor=10), NOW) == ["actor-0", "endpoint-b"]
    assert progress.observe(document(10, 8, learn=5, actor=9), NOW) == ["endpoint-a"]


def test_what_was_done_by_the_process_before_counts_for_nothing() -> None:
    progress = Progress()
    progress.observe(document(actor=9), NOW)
    assert progress.observe(document(actor=12), {**NOW, "actor-0": 33}) == ["endpoint-b"]
    later = document(actor=12)
    later["roles"][2]["pid"] = 33
    assert progress.observe(later, {**NOW, "actor-0": 33}) == ["endpoint-b"]
    later["roles"][2]["progress"] = 13
    assert progress.observe(later, {**NOW, "actor-0": 33}) == ["actor-0", "endpoint-b"]


def test_a_count_that_begins_again_is_seen_to_grow() -> None:
    progress = Progress()
    progress.observe(document(answered=100), NOW)  # still what the endpoint before it said
    assert progress.observe(document(answered=0), NOW) == []
    assert progress.observe(document(answered=1), NOW) == ["endpoint-a"]


def test_no_document_makes_it_raise() -> None:
    progress = Progress()
    for roles in (None, 3, [None, {}, {"name": 3, "pid": "x"}], [{"name": "actor-0", "pid": 3, "progress": "many"}]):
        assert progress.observe({"roles": roles, "facts": 7}, NOW) == []
