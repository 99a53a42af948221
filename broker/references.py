"""From "package.module:Name" in a run file to what is there.

Invariant: whatever goes wrong on the way, also inside the module that is imported, is one RequestError which begins
with the key and says how to mend it.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from broker.errors import RequestError

FORM = '"package.module:Name"'
PLACE = "put it in the run file's folder, or install its package"


def load(reference: str, key: str, shipped: Collection[str] = ()) -> Callable[..., Any]:
    """The class or function at "package.module:Name"; Name may have dots.

    `key` is the path in the run file where it was named (`learner.algorithm`), `shipped` the plain names that may stand
    there too.
    """
    path, colon, name = reference.partition(":")
    forms = " or ".join([*(f'"{known}"' for known in sorted(shipped)), FORM])
    if not colon:
        raise wrong(reference, key, "it is unknown", f"write {forms}")
    if not path or not name:
        raise wrong(reference, key, "it has nothing on one side of its colon", f"write {forms}")
    found: Any = import_module(path, reference, key)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = difflib.get_close_matches(part, dir(found), n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"define {name!r} there, or check its spelling"
            where = getattr(sys.modules[path], "__file__", None)  # it may be another one than was meant
            what = f"module {path!r} has no {name!r}" + (f" ({where})" if where else "")
            raise wrong(reference, key, what, mend) from None
    if not callable(found):
        what = f"{name!r} in module {path!r} is of type {type(found).__name__}"
        raise wrong(reference, key, what, "name a class or a function")
    return found  # type: ignore[no-any-return]


def import_module(path: str, reference: str, key: str, place: str = PLACE) -> ModuleType:
    """The module, imported. `place` says how to mend it where there is none."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        if path == missing or path.startswith(missing + "."):
            raise wrong(reference, key, f"there is no module {missing!r}", place) from error
        what = f"module {path!r} needs {missing!r}, which is missing"
        raise wrong(reference, key, what, f"install {missing!r}") from error
    except (Exception, SystemExit) as error:
        said = traceback.format_exception_only(error)[-1].strip()
        raise wrong(reference, key, f"importing {path!r} raised {said}{_place(error)}", "mend that module") from error


def wrong(reference: str, key: str, what: str, mend: str) -> RequestError:
    """The one form of these messages."""
    return RequestError(f"{key} {reference!r}: {what}. To mend it: {mend}{'' if mend.endswith('?') else '.'}")


def _place(error: BaseException) -> str:
    """Where it was raised, if that is not in Python's own importing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    frames = [f for f in frames if f.filename != __file__]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
