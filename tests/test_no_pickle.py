"""Nothing in the code reads what could run: no pickle, no relative of it, nowhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("broker", "actors", "learners", "tracker", "launcher", "runs", "bench")
FORBIDDEN = re.compile(
    r"""^\s*(?:import|from)\s+(?:pickle|cPickle|_pickle|dill|cloudpickle|joblib|shelve|marshal)\b
      | \b(?:send|recv)_pyobj\b
      | \bweights_only\s*=\s*False\b
      | \btorch\.(?:load|save)\b
      | \ballow_pickle\s*=\s*True\b
      | \bnp\.load\(
      | \byaml\.(?:unsafe_load|load)\b""",
    re.VERBOSE | re.MULTILINE,
)


OWN = "tracker/stored.py: import marshal"
"""Plain values over a pipe, from a process that this module is itself: nobody else can write there."""


def test_no_code_reads_pickled_objects() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0].strip()}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for match in FORBIDDEN.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == [OWN]


def test_the_pattern_finds_what_it_is_for() -> None:
    for line in (
        "import pickle",
        "  from cloudpickle import dumps",
        "s.recv_pyobj()",
        "torch.load(f, weights_only=False)",
    ):
        assert FORBIDDEN.search(line), line
    assert not FORBIDDEN.search('"""No pickle, anywhere."""')
