"""HostCopy: a copy of the weights in host memory, taken without waiting for the device."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor


class HostCopy:
    """Weights of one moment, in host memory.

    On CUDA the copy goes to pinned memory on a stream of its own while the host goes on; call `settle` before the
    weights change, which makes the device (not the host) wait for it. Elsewhere it is an ordinary copy. Memory is
    taken at the first `take` and used again.

    Examples
    --------
    >>> import torch
    >>> weights = {"w": torch.ones(2)}
    >>> copy = HostCopy()
    >>> copy.take(weights)
    >>> weights["w"] += 1
    >>> copy.read()["w"]
    tensor([1., 1.])
    """

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._stream: Any = None
        self._moving = False
        self._unsettled = False

    def take(self, weights: Mapping[str, Any]) -> None:
        """Copy the weights as they are now."""
        device = next((v.device for v in weights.values() if isinstance(v, Tensor) and v.is_cuda), None)
        if device is None:
            self._copy(weights, pinned=False)
        else:
            if self._stream is None:
                self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(self._stream):
                self._copy(weights, pinned=True)
            self._moving = self._unsettled = True

    def _copy(self, weights: Mapping[str, Any], *, pinned: bool) -> None:
        self._kept = {name: self._kept.get(name) for name in weights}
        for name, value in weights.items():
            if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
                self._kept[name] = value.detach().cpu().clone() if isinstance(value, Tensor) else deepcopy(value)
                continue
            value, kept = value.detach(), self._kept[name]
            fits = isinstance(kept, Tensor) and kept.shape == value.shape and kept.dtype == value.dtype
            if not fits:
                kept = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=pinned and value.is_cuda)
            self._kept[name] = kept
            if _is_plain(value):
                # One thread: torch would split it over all, and wait for each that is busy with something else.
                np.copyto(_bytes(kept), _bytes(value))
                continue
            kept.copy_(value, non_blocking=pinned)
            if value.is_cuda:
                value.record_stream(self._stream)

    def settle(self) -> None:
        """Let the device finish the copy before what it does next."""
        if self._unsettled:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._unsettled = False

    def read(self) -> dict[str, Any]:
        """Return the copy, complete; its tensors are overwritten by the next `take`."""
        if self._moving:
            self._stream.synchronize()
            self._moving = False
        return self._kept

    def put(self, weights: Mapping[str, Any]) -> None:
        """Hold these weights, from a checkpoint."""
        self.take(weights)
        self.read()


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.numel() > 0
    return dense and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()
