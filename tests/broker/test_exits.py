"""The end of what a process printed, as it stands in the ledger and on the screen."""

from __future__ import annotations

import json

from broker.delivery import MAX_BODY, MAX_LONG_TEXT
from broker.exits import output_end

TRACEBACK = "Traceback (most recent call last):"


def test_output_end_has_the_last_hundred_lines() -> None:
    assert output_end(b"") == ""
    assert output_end(b"\n".join(b"%d" % n for n in range(300))).splitlines() == [str(n) for n in range(200, 300)]


def test_output_end_begins_with_the_last_traceback() -> None:
    long = "\n".join(f"row {n}" for n in range(500))
    text = f"noise\n{TRACEBACK}\n  old\nValueError: old\nmore noise\n{TRACEBACK}\n  new\nValueError: {long}"
    assert output_end(text.encode()) == text[text.index("  new") - len(TRACEBACK) - 1 :]


def test_output_end_has_the_causes_of_the_last_traceback() -> None:
    long = "\n".join(f"row {n}" for n in range(200))
    cause = (
        f"{TRACEBACK}\n  first\nKeyError: 1\n\nThe above exception was the direct cause of the following exception:\n"
    )
    text = f"{TRACEBACK}\n  old\nValueError: old\nnoise\n{cause}\n{TRACEBACK}\n  second\nValueError: {long}"
    assert output_end(text.encode()) == text[text.index(cause) :]


def test_output_end_leaves_out_the_middle_and_fits_into_a_fact() -> None:
    told = output_end(f"{TRACEBACK}\nValueError: begin {chr(27) * 300_000} end".encode())
    assert told.startswith(TRACEBACK)
    assert told.endswith(" end")
    assert "characters are left out here]" in told
    assert len(told) <= MAX_LONG_TEXT
    assert len(json.dumps(told, ensure_ascii=False)) < MAX_BODY
