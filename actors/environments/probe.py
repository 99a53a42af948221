"""Ask an environment for its agents and spaces, before a run is planned.

As a program (`python -m actors.environments.probe`) it reads EnvironmentSettings as JSON on standard input and writes
the answer as JSON on standard output, or {"error": message} and exit status 2: so the launcher never imports a user's
environment into itself.

Invariant: standard output carries that one JSON line and nothing else, whatever the environment prints.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pydantic import ValidationError

from actors.environments.load import make
from actors.environments.manners import check_manners
from actors.environments.settings import EnvironmentSettings
from broker.errors import RequestError


def probe(settings: EnvironmentSettings) -> dict[str, Any]:
    """{"kind": "gymnasium" | "pettingzoo", "agents": {agent: {"observation": plain, "action": plain}}}, JSON-able.

    Makes one environment in the form that the run will use, looks at its manners and lets it go. Raises RequestError
    with one clear message.
    """
    environment = make(settings, 1)
    try:
        check_manners(settings, environment)
        return {
            "kind": environment.kind,
            "agents": {
                agent: {
                    "observation": environment.observation_specs[agent].to_plain(),
                    "action": environment.action_specs[agent].to_plain(),
                }
                for agent in environment.agents
            },
        }
    finally:
        environment.close()


def main() -> int:
    """The program; its exit status."""
    # Environments print (a greeting of a library's, a warning in C): what they write goes to standard error.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answer:
        try:
            settings = EnvironmentSettings.model_validate_json(sys.stdin.read())
            reply, status = probe(settings), 0
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            reply, status = {"error": f"environment: {faults}"}, 2
        except RequestError as error:
            reply, status = {"error": str(error)}, 2
        answer.write(json.dumps(reply, allow_nan=False) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
