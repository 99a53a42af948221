"""A module's parameters as a plain tree of arrays, and back.

A policy travels and is stored as `dict[str, np.ndarray]` under torch's own state-dict names; bfloat16, which numpy
lacks, travels as `broker.arrays.BFloat16`. Invariant: `to_arrays` copies (what is trained on meanwhile never tears what
was taken), and `load_arrays` checks every name, shape and dtype before it writes the first value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from broker.arrays import BFloat16
from broker.errors import RunError

Arrays = dict[str, Any]
"""State-dict name → np.ndarray, or BFloat16."""


def to_array(tensor: Tensor) -> Any:
    """A copy of one tensor as an array on the host (BFloat16 where the tensor is bfloat16)."""
    host = tensor.detach().to("cpu", copy=True).contiguous()
    if host.dtype == torch.bfloat16:
        return BFloat16(host.view(torch.uint16).numpy())
    return host.numpy()


def to_tensor(array: Any) -> Tensor:
    """The tensor that `to_array` came from. A writable array is shared, a read-only one copied."""
    if isinstance(array, BFloat16):
        return torch.from_numpy(_writable(array.bits)).view(torch.bfloat16)
    return torch.from_numpy(_writable(np.asarray(array)))


def to_arrays(module: nn.Module) -> Arrays:
    """Copies of all parameters and buffers of `module`."""
    return {name: to_array(tensor) for name, tensor in module.state_dict().items()}


@torch.no_grad()
def load_arrays(module: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Write `arrays` into the parameters and buffers of `module`, in place (views of them stay true).

    Raises RunError, with nothing written, when names, shapes or dtypes differ from the module's.
    """
    state = module.state_dict()
    if state.keys() != arrays.keys():
        missing, foreign = sorted(state.keys() - arrays.keys()), sorted(arrays.keys() - state.keys())
        raise RunError(f"these parameters are of another network: missing {missing}, unknown {foreign}")
    tensors = {name: to_tensor(array) for name, array in arrays.items()}
    for name, target in state.items():
        source = tensors[name]
        if source.shape != target.shape or source.dtype != target.dtype:
            raise RunError(
                f"these parameters are of another network: {name} is {source.dtype}{list(source.shape)}, "
                f"the network has {target.dtype}{list(target.shape)}"
            )
    for name, target in state.items():
        target.copy_(tensors[name])


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C")
