"""Looking whether endpoints can be reached and take their keys, before a run begins.

It asks for `GET url/models`, which costs nothing. Any answer means that somebody is there; 401 that the key is wrong.
Endpoints that do not know the path answer 404, which is accepted. A redirect to another host is a mistake in the run
file, because calls do not follow redirects.

Invariant: nothing is sent to any other place than the URL in the run file: a redirect is not followed, so that no key
goes astray.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urljoin, urlsplit

from actors.prompts import keys
from actors.prompts.completion import quoted
from actors.prompts.settings import SCRIPTED, is_loopback
from broker.errors import RequestError

TIMEOUT_SECONDS = 10.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def reach(endpoints: Mapping[str, Any], timeout: float = TIMEOUT_SECONDS) -> None:
    """Look at every endpoint but the simulation, side by side. One RequestError that names all that is wrong."""
    given = {name: settings for name, settings in endpoints.items() if settings and settings["url"] != SCRIPTED}
    if not given:
        return
    with ThreadPoolExecutor(len(given)) as pool:
        wrong = [told for told in pool.map(lambda name: _wrong(name, given[name], timeout), given) if told]
    if wrong:
        raise RequestError("\n".join(wrong))


def _wrong(name: str, settings: Mapping[str, Any], timeout: float) -> str | None:
    try:
        key = keys.read(name, settings)
    except RequestError as error:
        return str(error)
    url = settings["url"].rstrip("/") + "/models"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}", "User-Agent": "headrace"})  # noqa: S310 - the scheme is checked with the run file
    by = [_NoRedirect(), *([urllib.request.ProxyHandler({})] if is_loopback(url) else [])]
    try:
        with urllib.request.build_opener(*by).open(request, timeout=timeout):
            return None
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 401:
                return f"{keys.source(name, settings)}: the endpoint {settings['url']} refuses the key (401)"
            place = urljoin(url, error.headers.get("Location", ""))
            if 300 <= error.code < 400 and urlsplit(place)[:2] != urlsplit(url)[:2]:
                place = quoted(keys.hidden(place, key)).removesuffix("/models")
                return f"endpoints.{name}.url: {settings['url']} redirects to {place}; write that URL if it is right"
        return None
    except OSError as error:  # URLError, a timeout, a connection that breaks off
        why = getattr(error, "reason", None) or error
        told = keys.hidden(str(why), key)
        return f"endpoints.{name}.url: {settings['url']} cannot be reached: {told}; check the address, or start it"
    except (ValueError, http.client.HTTPException) as error:
        return f"endpoints.{name}.url: {settings['url']} cannot be asked: {keys.hidden(str(error), key)}"
