from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from broker import names
from broker.names import task_id, task_name


def test_a_topic_matches_one_name_only() -> None:
    assert names.topic("actor-1") == b"actor-1\0"
    assert not names.topic("actor-10").startswith(names.topic("actor-1"))


def test_later_incarnations_are_greater_and_tokens_differ() -> None:
    made = [names.new_incarnation() for _ in range(50)]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    assert [one[:16] for one in made] == sorted(one[:16] for one in made)
    assert len(set(made)) == 50
    assert names.new_token() != names.new_token()
    assert len(bytes.fromhex(names.new_token())) == 16


@given(
    st.text(max_size=20)
    | st.sampled_from(["t@life-2", "t@life-", "@life-1", "t@life-1@life-1", "t@life-" + "9" * 5000]),
    st.integers(1, 99),
)
def test_task_id_gives_name_and_life_back(name: str, life: int) -> None:
    assert task_name(task_id(name, life)) == (name, life)
