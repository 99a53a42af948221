"""Acting: sampling agrees with evaluation, masks bind, the fast path equals torch, parameters travel."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from actors.policies.dense import dense
from actors.policies.distributions import distribution
from actors.policies.policy import Policy, build_network
from actors.policies.tensors import load_arrays, to_array, to_arrays, to_tensor
from actors.spaces import ActionSpec, Leaf, ObservationSpec
from broker.arrays import BFloat16
from broker.errors import RequestError, RunError, UnsupportedSpace

VECTOR = ObservationSpec((Leaf("", "box", (18,), "float32"),))
IMAGE = ObservationSpec((Leaf("", "box", (84, 84, 4), "uint8"),))
STACK = ObservationSpec((Leaf("", "box", (4, 84, 84), "uint8"),))
MIXED = ObservationSpec(
    (
        Leaf("camera", "box", (48, 64, 3), "uint8"),
        Leaf("place", "discrete", (), "int64", 7),
        Leaf("arm/0", "multi_binary", (2, 3), "int8"),
        Leaf("arm/1", "box", (4,), "float32"),
    )
)
FIVE = ActionSpec("discrete", (5,))
GROUPS = ActionSpec("multi_discrete", (3, 2, 4), (3,))
BOX = ActionSpec("box", (), (2, 3), (-1.0,) * 6, (1.0,) * 5 + (math.inf,))


def batch(spec: ObservationSpec, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    values = {
        "float32": lambda leaf: random.standard_normal((rows, *leaf.shape), dtype=np.float32),
        "uint8": lambda leaf: random.integers(0, 256, (rows, *leaf.shape), dtype=np.uint8),
        "int64": lambda leaf: random.integers(0, leaf.n, rows),
        "int8": lambda leaf: random.integers(0, 2, (rows, *leaf.shape), dtype=np.int8),
    }
    return {leaf.name: values[leaf.dtype](leaf) for leaf in spec.leaves}


def masks(action: ActionSpec, rows: int, seed: int = 0) -> np.ndarray | None:
    if action.kind == "box":
        return None
    allowed = np.random.default_rng(seed).random((rows, sum(action.nvec))) < 0.4
    allowed[0] = False  # a dead agent's row
    return allowed


@pytest.mark.parametrize("action", [FIVE, GROUPS, BOX], ids=lambda action: action.kind)
@pytest.mark.parametrize("masked", [False, True])
def test_sampled_log_probability_is_the_evaluated_one(action, masked):
    if masked and action.kind == "box":
        pytest.skip("a box has no masks")
    allowed = masks(action, 32) if masked else None
    policy = distribution(action)
    parameters = np.random.default_rng(1).standard_normal((32, policy.size), dtype=np.float32)
    for deterministic in (False, True):
        actions, logp = policy.sample(parameters, np.random.default_rng(2), allowed, deterministic)
        tensors = None if allowed is None else torch.from_numpy(allowed)
        evaluated, _ = policy.evaluate(torch.from_numpy(parameters), torch.from_numpy(actions), tensors)
        assert actions.dtype == action.dtype
        assert actions.shape == (32, *action.shape)
        assert logp.dtype == np.float32
        np.testing.assert_allclose(logp, evaluated.numpy(), rtol=1e-4, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_a_masked_action_is_never_taken(seed, choices):
    random = np.random.default_rng(seed)
    allowed = random.random((64, choices)) < 0.5
    allowed[np.arange(64), random.integers(0, choices, 64)] = True
    logits = random.normal(0, 10, (64, choices)).astype(np.float32)
    policy = distribution(ActionSpec("discrete", (choices,)))
    for deterministic in (False, True):
        actions, logp = policy.sample(logits, random, allowed, deterministic)
        assert allowed[np.arange(64), actions].all()
        assert np.isfinite(logp).all()


def test_samples_follow_the_probabilities():
    logits = np.log(np.array([[0.1, 0.2, 0.7]], np.float32)).repeat(60_000, 0)
    actions, _ = distribution(ActionSpec("discrete", (3,))).sample(logits, np.random.default_rng(0), None, False)
    np.testing.assert_allclose(np.bincount(actions) / 60_000, [0.1, 0.2, 0.7], atol=0.01)


def test_categorical_score_and_its_gradient_are_torchs():
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    actions = torch.arange(9) % 5
    results = []
    for dtype in (torch.float32, torch.float64):  # float64 takes torch's own kernels
        z = logits.detach().clone().to(dtype).requires_grad_()
        logp, entropy = distribution(FIVE).evaluate(z, actions, None)
        (logp.sum() * 2 + entropy.square().sum()).backward()
        results.append((logp, entropy, z.grad))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("ends_linear", [False, True])
def test_dense_and_its_gradient_are_torchs(activation, ends_linear):
    torch.manual_seed(0)
    for widths in ((6, 32, 20, 5), (6, 32, 1), (6, 3)):
        fast = [nn.Linear(i, o) for i, o in pairwise(widths)]
        slow = [nn.Linear(i, o).double() for i, o in pairwise(widths)]
        for a, b in zip(fast, slow, strict=True):
            b.load_state_dict(a.state_dict())
        x = torch.randn(2, 7, 6, requires_grad=True)
        y = x.detach().double().requires_grad_()
        for layers, inputs in ((fast, x), (slow, y)):
            dense(inputs, layers, activation, ends_linear=ends_linear).square().sum().backward()
        torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-4, atol=1e-5)
        for a, b in zip(fast, slow, strict=True):
            torch.testing.assert_close(a.weight.grad.double(), b.weight.grad, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(a.bias.grad.double(), b.bias.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network_settings", [{}, {"shared": True}, {"normalise": True, "activation": "relu"}])
def test_acting_without_torch_equals_the_network(network_settings):
    network = build_network("mlp", VECTOR, FIVE, network_settings)
    if network.normaliser is not None:
        network.normaliser.observe(torch.randn(100, 18) * 3 + 1)
    policy = Policy(network, VECTOR, FIVE, seed=1)
    assert policy._dense is not None
    observations = batch(VECTOR, 12)
    expected = network(torch.from_numpy(observations[""]))[0].detach().numpy()
    np.testing.assert_allclose(policy.parameters(observations), expected, rtol=1e-4, atol=1e-5)


def test_loading_changes_how_it_acts():
    policies = [Policy(build_network("mlp", VECTOR, FIVE), VECTOR, FIVE, seed=3) for _ in range(2)]
    observations = batch(VECTOR, 12)
    assert not np.array_equal(*(policy.parameters(observations) for policy in policies))
    policies[1].load(to_arrays(policies[0].network))
    assert np.array_equal(*(policy.parameters(observations) for policy in policies))
    actions = [policy.act(observations) for policy in policies]
    np.testing.assert_array_equal(actions[0][0], actions[1][0])


@pytest.mark.parametrize(
    ("name", "spec"), [("mlp", VECTOR), ("mlp", MIXED), ("cnn", IMAGE), ("cnn", STACK), ("cnn", MIXED)]
)
@pytest.mark.parametrize("action", [FIVE, GROUPS, BOX], ids=lambda action: action.kind)
def test_every_space_is_acted_in(name, spec, action):
    policy = Policy(build_network(name, spec, action), spec, action, seed=1)
    actions, logp = policy.act(batch(spec, 3), masks(action, 3))
    assert actions.shape == (3, *action.shape)
    assert logp.shape == (3,)
    assert np.isfinite(logp).all()


class Unsqueezed(torch.nn.Module):
    def __init__(self, observation, action, logits=5, squeezed=False):
        super().__init__()
        self.layer = torch.nn.Linear(4, logits + 1)
        self.squeezed = squeezed

    def forward(self, observations):
        out = self.layer(observations)
        return out[..., :-1], out[..., -1] if self.squeezed else out[..., -1:]


class Alone(Unsqueezed):
    def forward(self, observations):
        return self.layer(observations)


@pytest.mark.parametrize(
    ("network", "settings", "told"),
    [
        ("Unsqueezed", {}, r"shapes \[2, 5\] and \[2\] for observations of shape \[2, 4\], not \[\[2, 5\], \[2, 1\]\]"),
        ("Unsqueezed", {"squeezed": True, "logits": 6}, r"not \[\[2, 6\], \[2\]\]"),
        ("Alone", {}, "not Tensor"),
        ("mlp", {"activation": "gelu"}, "gelu"),
    ],
)
def test_outputs_of_other_shapes_are_told_before_anything_is_learned(network, settings, told):
    four = ObservationSpec((Leaf("", "box", (4,), "float32"),))
    name = network if network == "mlp" else f"{__name__}:{network}"
    with pytest.raises(RequestError, match=told):
        build_network(name, four, FIVE, settings)


def test_leading_dimensions_are_kept():
    for name, spec in (("mlp", VECTOR), ("cnn", IMAGE)):
        network = build_network(name, spec, FIVE)
        flat = torch.from_numpy(batch(spec, 6)[""])
        parameters, values = network(flat.reshape(2, 3, *flat.shape[1:]))
        assert parameters.shape == (2, 3, 5)
        assert values.shape == (2, 3)
        torch.testing.assert_close(parameters.reshape(6, 5), network(flat)[0])


def test_box_actions_are_clipped_for_the_environment_only():
    policy = Policy(build_network("mlp", VECTOR, BOX), VECTOR, BOX, seed=1)
    actions, _ = policy.act(batch(VECTOR, 400))
    clipped = BOX.to_environment()(actions)
    assert np.abs(actions).max() > 1.0
    assert clipped.min() == -1.0
    assert clipped[:, :, :2].max() == 1.0
    assert clipped[:, 1, 2].max() > 1.0  # its bound is infinite


def test_running_moments_are_those_of_all_batches():
    network = build_network("mlp", VECTOR, FIVE, normalise=["observation"])
    seen = torch.randn(90, 18) * 4 - 2
    for part in seen.split([10, 50, 30]):
        network.normaliser.observe(part)
    torch.testing.assert_close(network.normaliser.mean, seen.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.normaliser.variance, seen.var(0, correction=0), rtol=1e-4, atol=1e-4)


def test_bfloat16_travels_as_bits():
    tensor = torch.tensor([1.0, -2.5, math.inf], dtype=torch.bfloat16)
    array = to_array(tensor)
    assert isinstance(array, BFloat16)
    assert torch.equal(to_tensor(array), tensor)
    module = nn.Linear(3, 2).to(torch.bfloat16)
    other = nn.Linear(3, 2).to(torch.bfloat16)
    load_arrays(other, to_arrays(module))
    assert torch.equal(module.weight, other.weight)


def test_parameters_are_copies_and_read_only_ones_load():
    module = nn.Linear(3, 2)
    arrays = to_arrays(module)
    before = arrays["weight"].copy()
    with torch.no_grad():
        module.weight += 1
    np.testing.assert_array_equal(arrays["weight"], before)
    for array in arrays.values():
        array.flags.writeable = False
    load_arrays(module, arrays)
    np.testing.assert_array_equal(module.weight.detach().numpy(), before)


@pytest.mark.parametrize("wrong", [{}, {"weight": 1, "bias": 1}, {"weight": 2, "bias": 2, "more": 1}])
def test_parameters_of_another_network_are_refused_whole(wrong):
    module = nn.Linear(3, 2)
    before = to_arrays(module)
    arrays = {name: np.zeros((rank,) * rank, np.float32) for name, rank in wrong.items()}
    with pytest.raises(RunError, match="another network"):
        load_arrays(module, arrays)
    for name, array in to_arrays(module).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("name", "chosen", "match"),
    [
        ("lstm", {}, r'unknown.*"cnn" or "mlp" or "package.module:Name"'),
        ("no.such.module:Net", {}, "policies.network.*no module 'no'"),
        ("math:Net", {}, "has no 'Net'"),
        ("mlp", {"depth": 3}, "depth"),
        ("builtins:dict", {}, "policies"),
    ],
)
def test_a_network_that_cannot_be_built_is_a_clear_request_error(name, chosen, match):
    with pytest.raises(RequestError, match=match):
        build_network(name, VECTOR, FIVE, chosen)


def test_images_that_suit_no_convolution_are_refused():
    for spec in (VECTOR, ObservationSpec((Leaf("", "box", (20, 20, 3), "uint8"),))):
        with pytest.raises(UnsupportedSpace):
            build_network("cnn", spec, FIVE)
