"""Dense layers on the CPU, in numpy, with their gradient: the small networks' fast path.

At 64 units the time goes into `tanh` and the weights' gradients, and numpy is quicker at both than torch's own kernels
(800 x 64, one thread: tanh 21 µs against 132, a weight gradient 79 against 144). `dense` is one autograd node for a
whole trunk, so that any loss and any algorithm may stand on it; elsewhere than on a CPU in float32, or where numpy's
values cannot stand for torch's, the same layers run as plain torch. Invariant: both give the same numbers to float32
rounding, gradients included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Array = np.ndarray[Any, Any]
Activation = Literal["tanh", "relu"]
NARROW = 16
"""Outputs below which numpy multiplies faster than torch (64 to 5: 8 µs against 70; 64 to 64 is alike)."""


def dense(features: Tensor, layers: Sequence[nn.Module], activation: Activation, *, ends_linear: bool) -> Tensor:
    """`features` [..., inputs] through `layers`, each followed by `activation`, the last one not if `ends_linear`."""
    if not layers:
        return features
    linear = cast("Sequence[nn.Linear]", layers)
    if features.device.type == "cpu" and features.dtype == torch.float32 and linear[0].weight.dtype == torch.float32:
        flat = features.reshape(-1, features.shape[-1])
        weights = [tensor for layer in linear for tensor in (layer.weight, layer.bias)]
        out = cast("Tensor", _Dense.apply(activation, ends_linear, flat, *weights))  # type: ignore[no-untyped-call]
        return out.reshape(*features.shape[:-1], out.shape[-1])
    apply = torch.tanh if activation == "tanh" else torch.relu
    for i, layer in enumerate(linear):
        features = F.linear(features, layer.weight, layer.bias)
        if not (ends_linear and i == len(layers) - 1):
            features = apply(features)
    return features


def forward(inputs: Array, weights: Sequence[tuple[Array, Array]], activation: str, ends_linear: bool) -> list[Array]:
    """The inputs [n, i] and each layer's output [n, o], for (weight [i, o], bias [o]) pairs."""
    outputs = [inputs]
    last = len(weights) - 1
    for i, (weight, bias) in enumerate(weights):
        hidden = outputs[-1] @ weight
        hidden += bias
        if not (ends_linear and i == last):
            activate(hidden, activation)
        outputs.append(hidden)
    return outputs


def activate(hidden: Array, activation: str) -> None:
    """In place."""
    if activation == "tanh":
        np.tanh(hidden, out=hidden)
    else:
        np.maximum(hidden, 0.0, out=hidden)


class _Dense(torch.autograd.Function):
    """A row of dense layers as one node: weights and biases [o, i], [o] alternate behind the features."""

    @staticmethod
    def forward(ctx: Any, activation: Activation, ends_linear: bool, features: Tensor, *tensors: Tensor) -> Tensor:
        outputs = [features.detach().numpy()]
        last = len(tensors) // 2 - 1
        for i in range(last + 1):
            weight, bias = tensors[2 * i].detach(), tensors[2 * i + 1].detach()
            if len(bias) < NARROW:
                hidden = outputs[-1] @ np.ascontiguousarray(weight.numpy().T)
                hidden += bias.numpy()
            else:
                hidden = torch.addmm(bias, torch.from_numpy(outputs[-1]), weight.t().contiguous()).numpy()
            if not (ends_linear and i == last):
                activate(hidden, activation)
            outputs.append(hidden)
        ctx.activation, ctx.ends_linear, ctx.outputs = activation, ends_linear, outputs
        ctx.save_for_backward(*tensors)  # autograd then refuses a backward after the weights moved
        return torch.from_numpy(outputs[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights = [tensor.detach().numpy() for tensor in ctx.saved_tensors[::2]]
        outputs, last = ctx.outputs, len(weights) - 1
        gradients: list[Tensor] = []
        for i in range(last, -1, -1):
            if not (ctx.ends_linear and i == last):
                gradient = _before(ctx.activation, gradient, torch.from_numpy(outputs[i + 1]))
            flowing = gradient.numpy()
            gradients += [gradient.sum(0), torch.from_numpy(flowing.T @ outputs[i])]
            if i or ctx.needs_input_grad[2]:
                weight = weights[i]
                gradient = torch.from_numpy(flowing * weight if len(weight) == 1 else flowing @ weight)
        return (None, None, gradient if ctx.needs_input_grad[2] else None, *reversed(gradients))


def _before(activation: Activation, gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient before an activation, from that behind it and the activation's output."""
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(gradient, output)  # type: ignore[no-any-return]
    return torch.ops.aten.threshold_backward(gradient, output, 0.0)  # type: ignore[no-any-return]
