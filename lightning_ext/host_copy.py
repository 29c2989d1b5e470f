"""HostCopy: a copy of the weights in host memory, taken without waiting for the device."""

from collections import OrderedDict
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
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._streams: dict[torch.device, Any] = {}
        self._moving: set[torch.device] = set()
        self._unsettled: set[torch.device] = set()

    def take(self, weights: Mapping[str, Any]) -> None:
        """Copy the weights as they are now."""
        self.settle()
        kept: OrderedDict[str, Any] = OrderedDict()
        for name, value in weights.items():
            kept[name] = self._copied(value, self._kept.get(name))
        if hasattr(weights, "_metadata"):  # versions of the modules, which load_state_dict looks at
            kept._metadata = weights._metadata  # type: ignore[attr-defined]
        self._kept = kept

    def _copied(self, value: Any, old: Any) -> Any:
        if not isinstance(value, Tensor):
            return deepcopy(value)
        value = value.detach()
        if value.layout is not torch.strided or value.is_quantized:
            return value.cpu().clone()
        pinned = value.is_cuda
        fits = isinstance(old, Tensor) and (old.shape, old.dtype) == (value.shape, value.dtype)
        if not fits or (pinned and not old.is_pinned()):
            old = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=pinned)
        if _is_plain(value):
            # One thread: torch would split it over all, and wait for each that is busy with something else.
            np.copyto(_bytes(old), _bytes(value))
        elif pinned:
            stream = self._stream(value.device)
            with torch.cuda.stream(stream):
                old.copy_(value, non_blocking=True)
            value.record_stream(stream)
        else:
            old.copy_(value)
        return old

    def _stream(self, device: torch.device) -> Any:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        stream = self._streams[device]
        if device not in self._unsettled:
            stream.wait_stream(torch.cuda.current_stream(device))
            self._unsettled.add(device)
            self._moving.add(device)
        return stream

    def settle(self) -> None:
        """Let the devices finish the copy before what they do next."""
        while self._unsettled:
            device = self._unsettled.pop()
            torch.cuda.current_stream(device).wait_stream(self._streams[device])

    def read(self) -> OrderedDict[str, Any]:
        """Return the copy, complete; its tensors are overwritten by the next `take`."""
        while self._moving:
            self._streams[self._moving.pop()].synchronize()
        return self._kept


def _is_plain(tensor: Tensor) -> bool:
    here = tensor.device.type == "cpu" and tensor.numel() > 0
    return here and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()
