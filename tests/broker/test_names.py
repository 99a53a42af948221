from __future__ import annotations

import re

import pytest

from broker import names
from broker.errors import RequestError


def test_a_topic_matches_one_name_only() -> None:
    assert names.topic("actor-1") == b"actor-1\0"
    assert not names.topic("actor-10").startswith(names.topic("actor-1"))


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 64])
def test_names_that_may_stand(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "a\n", "a\0", "\u00e9", "all", "standings"])
def test_names_that_may_not_say_why(name: str) -> None:
    with pytest.raises(RequestError, match=r"policy .*(use 1 to 64|reserved)"):
        names.check_name(name, "policy")


def test_later_incarnations_are_greater_and_tokens_differ() -> None:
    made = [names.new_incarnation() for _ in range(50)]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    assert [one[:16] for one in made] == sorted(one[:16] for one in made)
    assert len(set(made)) == 50
    assert names.new_token() != names.new_token()
    assert len(bytes.fromhex(names.new_token())) == 16
