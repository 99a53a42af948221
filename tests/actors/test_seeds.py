from __future__ import annotations

from pathlib import Path

import numpy as np

from actors.role import policies_of
from actors.seeds import actor_seed, environment_seed, evaluation_seed, policy_seed
from broker.station import Spec
from launcher import directory
from launcher.plan import child_of, make_plan
from launcher.probing import Probe
from launcher.reading import load


def test_environment_seeds_fit_a_c_int() -> None:
    seeds = [environment_seed(actor_seed(seed, 0, 1), copy) for seed in range(200) for copy in range(20)]
    assert min(seeds) >= 0
    assert 2**30 < max(seeds) < 2**31 - 2**16
    assert len(set(seeds)) > 3990


def test_no_two_streams_of_a_run_are_one() -> None:
    actors = [actor_seed(7, index, attempt) for index in range(8) for attempt in (1, 2, 3)] + [evaluation_seed(7)]
    streams = [environment_seed(seed, copy) for seed in actors for copy in range(32)]
    streams += [policy_seed(seed, place) for seed in actors for place in range(8)]
    assert len({*actors, *streams}) == len(actors) + len(streams)
    assert actor_seed(7, 0, 1) == actor_seed(7, 0, 1) != actor_seed(8, 0, 1)


def test_policies_of_one_actor_do_not_act_in_step(tmp_path: Path) -> None:
    run = load("spread", seed=1)
    probe = Probe(run)
    plan = make_plan(run, probe.answer())
    probe.close()
    where = directory.make("spread", tmp_path / "run")
    chosen = {}
    for name, attempt in (("actor-0", 1), ("actor-1", 1), ("actor-0", 2)):
        spec = Spec.of(child_of(plan, name, attempt, where).spec)
        policies = policies_of(spec)
        like = policies["agent_0"].network.state_dict()
        for policy in policies.values():
            policy.network.load_state_dict(like)
        seen = {"": np.zeros((1000, 18), np.float32)}
        chosen |= {(name, attempt, key): policy.act(seen)[0] for key, policy in policies.items()}
    draws = list(chosen.values())
    assert len(draws) == 9
    # Of five actions, nearly alike in likelihood: two that are drawn apart agree in a fifth of the rows.
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert np.mean(one == other) < 0.35
