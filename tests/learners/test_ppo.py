"""PPO learns, goes on exactly where a snapshot was taken, and refuses what is not of its shapes."""

import numpy as np
import pytest
import torch

from actors.policies.networks import Normaliser
from actors.policies.policy import Policy, build_network
from actors.spaces import ActionSpec, Leaf, ObservationSpec
from broker.arrays import pack, unpack
from broker.errors import RequestError, RunError
from learners.algorithm import Algorithm, AlgorithmContext, Fragment, build_algorithm
from learners.ppo import Ppo

VECTOR = ObservationSpec((Leaf("", "box", (4,), "float32"),))
PAIR = ObservationSpec((Leaf("goal", "discrete", (), "int64", 3), Leaf("view", "box", (4,), "float32")))
THREE = ActionSpec("discrete", (3,))
MASKED = ActionSpec("discrete", (3,), masked=True)
GROUPS = ActionSpec("multi_discrete", (3, 2), (2,))
BOX = ActionSpec("box", (), (2,), (-2.0, -2.0), (2.0, 2.0))


def algorithm(observation=VECTOR, action=THREE, normalise=(), network_settings=None, **settings) -> Ppo:
    settings = {"batch_steps": 128, "epochs": 2, "minibatches": 2, **settings}
    return Ppo(
        AlgorithmContext(
            "p", observation, action, settings=settings, seed=5, normalise=normalise,
            network_settings=network_settings or {"hidden": (16,)},
        )
    )  # fmt: skip


def play(policy: Policy, random: np.random.Generator, steps=16, width=8, reward=None, spoil=False) -> Fragment:
    """A fragment of a game with one step a turn: the reward depends on the observation and the action."""
    leaves = policy.observation.leaves
    seen = {
        leaf.name: random.integers(0, leaf.n, (steps + 1, width))
        if leaf.kind == "discrete"
        else random.standard_normal((steps + 1, width, *leaf.shape), dtype=np.float32)
        for leaf in leaves
    }
    action = policy.action
    masks = random.random((steps + 1, width, action.mask_size)) < 0.7 if action.masked else None
    actions, logps = [], []
    for t in range(steps):
        a, logp = policy.act({name: leaf[t] for name, leaf in seen.items()}, None if masks is None else masks[t])
        actions.append(a)
        logps.append(logp)
    arrays = {f"observations/{name}" if name else "observations": leaf for name, leaf in seen.items()}
    arrays |= {"actions": np.stack(actions), "log_probabilities": np.stack(logps)}
    rewards = np.zeros((steps, width)) if reward is None else reward(seen, arrays["actions"])
    arrays["rewards"] = rewards.astype(np.float32)
    arrays["terminated"] = np.ones((steps, width), bool)
    arrays["truncated"] = np.zeros((steps, width), bool)
    arrays["valid"] = random.random((steps, width)) < 0.9
    if spoil:  # rows that are not real must not matter, whatever stands in them
        arrays["rewards"][~arrays["valid"]] = 1e9
    if masks is not None:
        arrays["masks"] = masks
    return Fragment(arrays, (1, 1), int(arrays["valid"].sum()))


def actor(learner: Ppo, normalise=(), network_settings=None) -> Policy:
    network = build_network(
        "mlp", learner.observation, learner.action, network_settings or {"hidden": (16,)}, normalise
    )
    policy = Policy(network, learner.observation, learner.action, seed=9)
    policy.load(learner.parameters())
    return policy


def test_it_is_an_algorithm_by_name():
    built = build_algorithm("ppo", AlgorithmContext("p", VECTOR, THREE))
    assert isinstance(built, Algorithm)
    assert not built.ready()
    assert not built.mint()


@pytest.mark.parametrize("spoil", [False, True])
def test_it_learns_which_action_pays_though_its_actor_lags(spoil):
    learner = algorithm(learning_rate=5e-3, gamma=0.0)
    policy, random = actor(learner), np.random.default_rng(0)
    lagging = [learner.parameters()] * 2

    def pays(seen, actions):
        return actions == np.where(seen[""][:-1, :, 0] > 0, 2, 1)

    for _ in range(60):
        policy.load(lagging.pop(0))
        while not learner.ready():
            learner.accept(play(policy, random, reward=pays, spoil=spoil))
        losses = learner.update()
        lagging.append(learner.parameters())
    policy.load(learner.parameters())
    last = play(policy, random, steps=64, reward=pays)
    assert last.arrays["rewards"].mean() > 0.9
    assert all(np.isfinite(value) for value in losses.values())
    assert {"policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "explained_variance"} <= losses.keys()
    assert {"grad_norm", "learning_rate"} <= losses.keys()


def test_it_learns_a_real_action():
    learner = algorithm(action=BOX, learning_rate=5e-3, gamma=0.0, entropy=0.0, epochs=4)
    policy, random = actor(learner), np.random.default_rng(0)
    for _ in range(60):
        policy.load(learner.parameters())
        while not learner.ready():
            learner.accept(play(policy, random, reward=lambda seen, actions: -np.square(actions - 1).sum(-1)))
        learner.update()
    policy.load(learner.parameters())
    observations = {"": random.standard_normal((64, 4), dtype=np.float32)}
    assert np.abs(policy.act(observations, deterministic=True)[0] - 1.0).mean() < 0.25


@pytest.mark.parametrize(("observation", "action"), [(PAIR, THREE), (VECTOR, MASKED), (VECTOR, GROUPS), (VECTOR, BOX)])
def test_after_a_snapshot_the_next_updates_are_the_same_bit_for_bit(observation, action):
    normalise = ["observation"]
    learner, other = (algorithm(observation, action, normalise, value_clip=0.2) for _ in range(2))
    policy, random = actor(learner, normalise), np.random.default_rng(0)
    fragments = [play(policy, random, reward=lambda seen, actions: random.random(actions.shape[:2])) for _ in range(9)]
    for fragment in fragments[:3]:
        learner.accept(fragment)
    learner.update()
    layout, payload = pack(learner.snapshot())  # as a checkpoint stores it
    other.restore(unpack(layout, payload))
    for one in (learner, other):
        for at in (3, 6):
            for fragment in fragments[at : at + 3]:
                one.accept(fragment)
            one.update()
    assert learner.agent_steps == other.agent_steps
    for name, array in learner.parameters().items():
        np.testing.assert_array_equal(array, other.parameters()[name])


def test_fragments_of_different_lengths_make_one_batch():
    learner = algorithm()
    policy, random = actor(learner), np.random.default_rng(0)
    sizes = [(16, 8), (5, 3), (16, 2)]
    fragments = [play(policy, random, steps=steps, width=width) for steps, width in sizes]
    for fragment in fragments:
        learner.accept(fragment)
    learner.update()
    assert learner.agent_steps == sum(fragment.steps for fragment in fragments)


def test_what_is_published_is_a_copy():
    learner = algorithm()
    published = learner.parameters()
    before = {name: array.copy() for name, array in published.items()}
    policy, random = actor(learner), np.random.default_rng(0)
    learner.accept(play(policy, random))
    learner.update()
    for name, array in published.items():
        np.testing.assert_array_equal(array, before[name])


def broken(name, change):
    def apply(arrays):
        arrays[name] = change(arrays[name])

    return apply


@pytest.mark.parametrize(
    ("breaking", "match"),
    [
        (broken("rewards", lambda a: a[:-1]), "must be"),
        (broken("rewards", lambda a: np.full_like(a, np.nan)), "rewards are not finite"),
        (broken("actions", lambda a: a.astype(np.int32)), "actions must be int64"),
        (broken("observations", lambda a: a[:-1]), r"observations must be float32\[17, 8, 4\]"),
        (broken("valid", lambda a: a.astype(np.uint8)), "valid must be bool"),
        (broken("rewards", lambda a: np.full_like(a, 3e38)), r"rewards are beyond 1e\+30"),
        (broken("rewards", lambda a: a.tolist()), "rewards must be an array, not list"),
        (broken("actions", lambda a: a + 3), r"actions must be from 0 up to \[3\]"),
        (broken("actions", lambda a: a - 3), r"actions must be from 0 up to \[3\]"),
        (lambda arrays: arrays.pop("terminated"), "a fragment here has"),
        (lambda arrays: arrays.pop("rewards"), "rewards must be"),
    ],
)
def test_a_fragment_of_other_shapes_is_refused(breaking, match):
    learner = algorithm()
    fragment = play(actor(learner), np.random.default_rng(0))
    breaking(fragment.arrays)
    with pytest.raises((ValueError, TypeError), match=match):
        learner.accept(fragment)
    assert not learner.ready()


def test_what_is_no_tree_of_arrays_is_refused():
    for tree in (None, 3.0, [np.zeros((2, 2), np.float32)]):
        with pytest.raises(TypeError, match="a fragment must be an array, not"):
            algorithm().accept(Fragment(tree, (1, 1), 1))


def test_columns_in_which_nobody_played_are_not_kept():
    learner = algorithm(batch_steps=60)
    policy, random = actor(learner), np.random.default_rng(0)
    absent = play(policy, random)
    absent.arrays["valid"][:] = False
    for _ in range(100):
        learner.accept(absent)
    gone = play(policy, random)
    gone.arrays["valid"][:] = np.arange(8) < 3
    learner.accept(gone)
    assert sum(array.nbytes for arrays in learner._fragments for array in arrays.values()) < 10_000
    assert not learner.ready()
    for _ in range(2):
        learner.accept(play(policy, random))
    assert learner.ready()
    learner.update()
    assert learner.agent_steps > 48


@pytest.mark.parametrize("deviations", [10, 40, 80])
@pytest.mark.parametrize("log_std", [-2.0, -6.0])
def test_a_very_stale_action_leaves_the_parameters_finite(log_std, deviations):
    for seed in range(4):
        learner = algorithm(action=BOX, epochs=4)
        with torch.no_grad():
            learner.network.head.log_std.fill_(log_std)
        stale = play(actor(learner), np.random.default_rng(seed), reward=lambda _, a: a.sum(-1))
        stale.arrays["actions"][3, 1] += deviations * np.exp(log_std)
        learner.accept(stale)
        learner.update()
        assert all(np.isfinite(array).all() for array in learner.parameters().values())


def test_a_gradient_that_is_not_finite_counts_as_none():
    learner = algorithm()
    before = learner.parameters()
    loss = sum(parameter.sum() for parameter in learner.network.parameters()) * float("nan")
    assert not learner.optimizer.step([loss], None, 1.0, 0.5).isfinite()
    for name, array in learner.parameters().items():
        np.testing.assert_array_equal(array, before[name])


class Blind(torch.nn.Module):
    def __init__(self, observation, action):
        super().__init__()
        self.normaliser = Normaliser(4)


def test_a_network_says_what_its_normaliser_observes():
    with pytest.raises(RequestError, match="a `normaliser` and no `features"):
        build_network(f"{__name__}:Blind", VECTOR, THREE)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"learning_rte": 1.0}, r"learner\.settings\.learning_rte"),
        ({"epochs": 0}, r"learner\.settings\.epochs"),
        ({"gamma": "high"}, r"learner\.settings\.gamma"),
        ({"learning_rate_end": 0.0}, "over anneal_steps: give it too"),
        ({"entropy_end": 0.0}, "over anneal_steps: give it too"),
    ],
)
def test_wrong_settings_name_their_path(settings, match):
    with pytest.raises(RequestError, match=match):
        Ppo(AlgorithmContext("p", VECTOR, THREE, settings=settings))


def test_a_policy_without_spaces_is_a_request_error():
    with pytest.raises(RequestError, match="environment"):
        Ppo(AlgorithmContext("p"))


@pytest.mark.parametrize(
    ("name", "match"),
    [("pop", "unknown"), ("no.such:Thing", "no module 'no'"), ("math:Thing", "has no"), ("builtins:len", "lacks")],
)
def test_an_unknown_algorithm_is_a_request_error(name, match):
    with pytest.raises(RequestError, match=match):
        build_algorithm(name, [])  # type: ignore[arg-type]


def test_a_snapshot_of_something_else_is_refused():
    with pytest.raises(RunError):
        algorithm().restore({"algorithm": "dqn"})
    with pytest.raises(RunError, match="another network"):
        algorithm().restore(algorithm(network_settings={"hidden": (8,)}).snapshot())


def test_value_moments_keep_what_the_critic_says():
    learner = algorithm()
    seen = torch.randn(10, 4)
    targets = np.random.default_rng(0).normal(50, 20, 100).astype(np.float32)
    for _ in range(3):
        before = learner.moments.grow(learner.network(seen)[1].detach().numpy())
        learner.moments.observe(targets, learner.network.value)
        after = learner.moments.grow(learner.network(seen)[1].detach().numpy())
        np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-3)
        targets = targets * 3 - 10
