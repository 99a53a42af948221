"""A policy that acts: one forward pass over the actor's whole vector of environments.

Invariant: an action and its log-probability come from the same parameters; `load` replaces all of them in place,
between two calls of `act`, never during one.

Where the network's actor is plain dense layers on one Box (`dense_actor`), it is evaluated in numpy on views of the
very same parameters: 48 x 18 through 64-64-5 takes 17 µs there and 50 µs as a torch module. Any other network runs as
it is, in inference mode, on any device.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from actors.policies.dense import forward
from actors.policies.distributions import distribution
from actors.policies.networks import Mlp, NatureCnn
from actors.policies.tensors import load_arrays
from actors.spaces import ActionSpec, ObservationSpec
from broker.errors import RequestError
from broker.references import load as load_reference

Array = np.ndarray[Any, Any]
NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": Mlp, "cnn": NatureCnn}


class Policy:
    """Acts for all agents and environments that follow one policy."""

    def __init__(
        self,
        network: nn.Module,
        observation: ObservationSpec,
        action: ActionSpec,
        device: str | torch.device = "cpu",
        seed: int | None = None,
    ) -> None:
        self.network = network.to(device).eval()
        self.observation = observation
        self.action = action
        self.distribution = distribution(action)
        self._device = torch.device(device)
        self._random = np.random.default_rng(seed)
        self._plain = len(observation.leaves) == 1 and observation.leaves[0].name == ""
        self._dense = self._dense_actor()

    def act(
        self, observations: Mapping[str, Array], masks: Array | None = None, deterministic: bool = False
    ) -> tuple[Array, Array]:
        """Actions [B, ...] and their log-probabilities float32 [B] for observations {leaf: [B, ...]}.

        `masks` bool [B, n] allow actions. Actions of a box are neither rescaled nor clipped here: see
        `ActionSpec.to_environment`.
        """
        parameters = self.parameters(observations)
        return self.distribution.sample(parameters, self._random, masks, deterministic)

    def parameters(self, observations: Mapping[str, Array]) -> Array:
        """Action parameters float32 [B, k]: logits, or mean and log standard deviation."""
        if self._dense is not None:
            return self._dense(observations[""])
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(np.asarray(a)).to(self._device) for name, a in observations.items()}
            out = self.network(tensors[""] if self._plain else tensors)[0]
            return cast("Array", out.float().cpu().numpy())

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Apply new parameters in place. Raises RunError, with nothing changed, if they are of another network."""
        load_arrays(self.network, arrays)

    def _dense_actor(self) -> Callable[[Array], Array] | None:
        leaf = self.observation.leaves[0]
        offer = getattr(self.network, "dense_actor", None)
        if not self._plain or leaf.kind != "box" or self._device.type != "cpu" or offer is None:
            return None
        dense = offer()
        if dense is None:
            return None
        layers, activation = dense
        return _DenseActor(layers, activation, getattr(self.network, "normaliser", None))


class _DenseActor:
    """Dense layers in numpy over views of torch parameters, so that `load` reaches them too."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], activation: str, normaliser: nn.Module | None) -> None:
        self._layers = [(weight.detach().numpy().T, bias.detach().numpy()) for weight, bias in layers]
        self._activation = activation
        self._moments: tuple[Array, Array] | None = None
        if normaliser is not None:
            self._moments = cast("Tensor", normaliser.mean).numpy(), cast("Tensor", normaliser.variance).numpy()

    def __call__(self, observations: Array) -> Array:
        hidden = observations.reshape(len(observations), -1).astype(np.float32, copy=False)
        if self._moments is not None:
            mean, variance = self._moments
            hidden = np.clip((hidden - mean) / np.sqrt(variance + np.float32(1e-8)), -10.0, 10.0)
        return forward(hidden, self._layers, self._activation, ends_linear=True)[-1]


def build_network(
    name: str,
    observation: ObservationSpec,
    action: ActionSpec,
    settings: Mapping[str, Any] | None = None,
    normalise: Collection[str] = (),
) -> nn.Module:
    """The network called `name`: "mlp", "cnn", or a user's own as "package.module:Name".

    `normalise` is the run file's `environment.normalise`; with "observation" in it the network is given the setting
    `normalise=True`. Its parameters are drawn from torch's global generator.

    Raises RequestError for an unknown name, a module that cannot be imported, or settings that it does not take.
    """
    build = NETWORKS.get(name) or load_reference(name, "policies.network", NETWORKS)
    chosen = dict(settings or {})
    if "observation" in normalise:
        chosen["normalise"] = True
    try:
        network = build(observation, action, **chosen)
    except (TypeError, KeyError) as error:
        raise RequestError(f"policies.settings do not suit network {name!r}: {error}") from error
    if not isinstance(network, nn.Module):
        raise RequestError(f"policies.network {name!r} gave {type(network).__name__}, not a torch.nn.Module")
    if getattr(network, "normaliser", None) is not None and not callable(getattr(network, "features", None)):
        raise RequestError(
            f"policies.network {name!r} has a `normaliser` and no `features(observations)`: what is it to observe?"
        )
    _try(network, name, observation, action)
    return network


def _try(network: nn.Module, name: str, observation: ObservationSpec, action: ActionSpec) -> None:
    """RequestError unless two observations give two rows of action parameters and two values.

    Anything else may be broadcast in silence, and then learns in silence what nobody meant.
    """
    seen = {leaf.name: torch.from_numpy(np.zeros((2, *leaf.shape), leaf.dtype)) for leaf in observation.leaves}
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            out = network(seen[""] if observation.plain else seen)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise RequestError(
            f"policies.network {name!r}: forward raised {type(error).__name__}: {error} ({where}), for {_shapes(seen)}"
        ) from error
    finally:
        network.train(training)
    size = distribution(action).size
    found = [list(part.shape) for part in out if isinstance(part, Tensor)] if isinstance(out, tuple | list) else out
    if found != [[2, size], [2]]:
        told = found if isinstance(found, list) else type(found).__name__
        raise RequestError(
            f"policies.network {name!r}: forward must give (action parameters, value) of shapes [2, {size}] and [2] "
            f"for {_shapes(seen)}, not {told}"
        )


def _shapes(seen: Mapping[str, Tensor]) -> str:
    told = ", ".join(f"{leaf} {list(tensor.shape)}".strip() for leaf, tensor in seen.items())
    return f"observations of shape {told}"
