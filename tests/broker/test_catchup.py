from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.catchup import CatchUp
from tests.broker.draws import quick


def test_one_who_is_behind_is_answered_under_its_own_name_once_a_pulse() -> None:
    catch_up = CatchUp()
    catch_up.published((1, 5))
    for name in ("a", "b", "c"):
        catch_up.hello(name, (1, 5))
    catch_up.hello("b", (1, 4))
    catch_up.hello("b", (1, 4))
    assert catch_up.due("all") == ["b"]
    assert catch_up.due("all") == []


def test_when_more_than_half_are_behind_it_goes_once_to_all() -> None:
    catch_up = CatchUp()
    catch_up.published((1, 5))
    for name in ("a", "b", "c"):
        catch_up.hello(name, None)
    catch_up.hello("c", (1, 5))
    assert catch_up.due("all") == ["all"]


def test_a_single_spoke_is_not_all() -> None:
    catch_up = CatchUp()
    catch_up.published((1, 1))
    catch_up.hello("a", None)
    assert catch_up.due("all") == ["a"]


def test_the_next_life_is_newer_whatever_the_number() -> None:
    catch_up = CatchUp()
    catch_up.published((2, 1))
    catch_up.hello("a", (1, 99))
    assert catch_up.due("all") == ["a"]


def test_before_the_first_version_nobody_is_behind() -> None:
    catch_up = CatchUp()
    catch_up.hello("a", None)
    assert catch_up.due("all") == []


def test_who_left_is_not_sent_to() -> None:
    catch_up = CatchUp()
    catch_up.published((1, 1))
    catch_up.hello("a", None)
    catch_up.forget("a")
    assert catch_up.due("all") == []


@quick
@given(
    st.lists(
        st.tuples(st.sampled_from(["hello", "publish", "forget", "due"]), st.sampled_from("abcde"), st.integers(0, 3)),
        max_size=60,
    )
)
def test_everyone_who_said_he_is_behind_is_reached_and_nobody_else(script: list[tuple[str, str, int]]) -> None:
    catch_up = CatchUp()
    current, behind = 0, set[str]()
    for move, name, number in script:
        if move == "hello":
            catch_up.hello(name, (1, min(number, current)) if number else None)
            behind.discard(name)
            if current and min(number, current) < current:
                behind.add(name)
        elif move == "publish":
            current += 1
            catch_up.published((1, current))
            behind.clear()
        elif move == "forget":
            catch_up.forget(name)
            behind.discard(name)
        else:
            due = catch_up.due("all")
            assert set(due) == behind or (due == ["all"] and len(behind) > 1)
            assert len(due) == len(set(due))
            behind.clear()
