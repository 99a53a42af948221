from __future__ import annotations

import re

from broker import errors


def test_the_tree_is_as_it_is_drawn() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    made = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert made == {"HeadraceError", *drawn}
    assert all(issubclass(getattr(errors, name), errors.HeadraceError) for name in made)
    assert issubclass(errors.UnsupportedSpace, errors.RequestError)
    assert all(
        issubclass(one, errors.RunError) for one in (errors.Superseded, errors.Unreachable, errors.DamagedCheckpoint)
    )


def test_a_wire_error_is_counted_by_its_reason() -> None:
    assert errors.WireError("size", "3 bytes").reason == "size"
    assert str(errors.WireError("size", "3 bytes")) == "size: 3 bytes"
    assert str(errors.WireError("size")) == "size"
