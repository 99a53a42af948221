"""Keys of endpoints: read where they are used, told to nobody.

Invariant: no key leaves this process but in the header of a request to its endpoint. An error names where the key was
looked for, never what was found there; what an endpoint says is shown without the key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.errors import RequestError
from broker.text_files import read_text

NONE = "none"
"""What an endpoint without a key is sent."""


def read(name: str, endpoint: Mapping[str, Any]) -> str:
    """The key of `endpoints.NAME`. RequestError if it is not where the run file says."""
    if variable := endpoint.get("key_env"):
        key = os.environ.get(variable, "").strip()
        if not key:
            raise RequestError(
                f"endpoints.{name}.key_env: the environment variable {variable} is not set; set it, or give key_file"
            )
    elif file := endpoint.get("key_file"):
        try:
            key = read_text(Path(file).expanduser()).strip()
        except RequestError as error:
            raise RequestError(f"endpoints.{name}.key_file: {error}") from None
        if not key:
            raise RequestError(f"endpoints.{name}.key_file: {file} is empty; it must hold the key alone")
    else:
        return NONE
    if not key.isascii() or not key.isprintable() or " " in key:
        raise RequestError(f"{source(name, endpoint)}: what is there is no key: a key is one word of ASCII")
    return key


def source(name: str, endpoint: Mapping[str, Any]) -> str:
    """Where the key comes from, in words."""
    if variable := endpoint.get("key_env"):
        return f"endpoints.{name}.key_env ({variable})"
    if file := endpoint.get("key_file"):
        return f"endpoints.{name}.key_file ({file})"
    return f"endpoints.{name} (it has neither key_env nor key_file)"


def hidden(text: str, key: str) -> str:
    """Replace the key in a text by `***`, both in plain form and as JSON writes it."""
    if key == NONE or len(key) < 4:
        return text
    escaped = json.dumps(key)[1:-1]
    for form in (key, escaped, escaped.replace("/", "\\/")):
        text = text.replace(form, "***")
    return text
