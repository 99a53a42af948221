"""Adam over one flat vector: a network's parameters side by side, stepped by a handful of kernels.

A small network has a dozen parameter tensors, and an optimizer that visits each of them spends its time in overhead.
Here the parameters become views of one vector, so that the norm, the clipping and Adam (Kingma and Ba 2015, algorithm
1) are a few kernels whatever the number of layers, and the optimizer's state is three values that are easy to store.

Invariant: the module's parameters stay views of `flat`; write into them in place, never replace them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actors.policies.tensors import to_array, to_tensor
from broker.errors import RequestError, RunError


class _Sloped(torch.autograd.Function):
    """A scalar (0) whose derivatives by the outputs are the slopes.

    Of slopes that `torch.autograd.grad` is given it compares the shapes by way of sympy: 0.5 to 0.8 s and 33 MiB to
    import it, in each learner, before its first step.
    """

    @staticmethod
    def forward(ctx: Any, slopes: Sequence[Tensor], *outputs: Tensor) -> Tensor:
        ctx.slopes = slopes
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.slopes)


class FlatAdam:
    """Owns the layout of a module's trainable parameters, and their moments."""

    def __init__(self, module: nn.Module, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-5) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if len({(parameter.dtype, parameter.device) for parameter in self.parameters}) != 1:
            raise RequestError("a policy's network needs trainable parameters of one dtype on one device")
        self.flat = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        offset = 0
        for parameter in self.parameters:
            count = parameter.numel()
            parameter.data = self.flat[offset : offset + count].view_as(parameter)
            offset += count
        self.betas = betas
        self.epsilon = epsilon
        self.mean = torch.zeros_like(self.flat)
        self.square = torch.zeros_like(self.flat)
        self.count = 0

    def step(
        self,
        outputs: Sequence[Tensor],
        slopes: Sequence[Tensor] | None,
        rate: float,
        max_norm: float | None,
    ) -> Tensor:
        """One step down the gradient of a loss, its norm clipped to `max_norm`; the norm before clipping (a scalar).

        The loss is `outputs[0]`, a scalar; or it is known by its `slopes`, the derivatives of it by each of `outputs`.
        A gradient that is not finite counts as none: parameters that are lost once stay lost.
        """
        loss = outputs[0] if slopes is None else _Sloped.apply(slopes, *outputs)  # type: ignore[no-untyped-call]
        parts = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([part.reshape(-1) for part in parts])
        with torch.no_grad():
            norm: Tensor = torch.linalg.vector_norm(gradient)
            if max_norm is not None:
                gradient *= (max_norm / (norm + 1e-6)).clamp(max=1.0)
            gradient = torch.where(norm.isfinite(), gradient, 0.0)  # without waiting for what the norm is
            self.count += 1
            first, second = self.betas
            self.mean.lerp_(gradient, 1.0 - first)
            self.square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
            root = (1.0 - second**self.count) ** 0.5
            width = self.square.sqrt().add_(self.epsilon * root)
            self.flat.addcdiv_(self.mean, width, value=-rate * root / (1.0 - first**self.count))
        return norm

    def snapshot(self) -> dict[str, Any]:
        """Copies of the moments and the count of steps."""
        return {"mean": to_array(self.mean), "square": to_array(self.square), "count": self.count}

    def restore(self, tree: dict[str, Any]) -> None:
        """Go on from a snapshot. Raises RunError for one of another network."""
        for name, target in (("mean", self.mean), ("square", self.square)):
            source = to_tensor(np.asarray(tree[name]))
            if source.shape != target.shape:
                raise RunError(f"this optimizer is of another network: {name} has {len(source)}, not {len(target)}")
            target.copy_(source)
        self.count = int(tree["count"])
