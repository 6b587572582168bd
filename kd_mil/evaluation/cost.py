"""What a network costs to run on images of the sizes it really gets."""

import copy
import statistics
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

Size = tuple[int, int]


class Cost(NamedTuple):
    """Cost of one forward pass, averaged over images."""

    parameters: int
    gmac: float
    """10^9 multiply-accumulate operations of convolutions and linear layers, as torch counts them."""
    gflop: float
    """10^9 floating-point operations: two for each multiply-accumulate."""
    peak_mib: float
    """Most memory that activations and input hold at once, MiB, for the largest image; weights are not in it."""
    latency_ms: float | None
    """Median milliseconds for an image of the median area on the network's device; None where not measured."""


def inference_cost(network: nn.Module, sizes: Sequence[Size], repeats: int = 0) -> Cost:
    """Cost of a network over images of the given (height, width), RGB, one at a time.

    Operations and memory are counted on tensors without data, so they take no time and do not depend on the machine.

    Args:
        repeats: timed passes for the latency, after one that warms up; 0 = not measured.
    """
    counted = Counter(sizes)
    shadow = copy.deepcopy(network).to("meta").eval()
    flop = sum(count * flops(shadow, size) for size, count in counted.items()) / len(sizes)
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        gmac=flop / 2e9,
        gflop=flop / 1e9,
        peak_mib=peak_bytes(shadow, by_area[-1]) / 2**20,
        latency_ms=latency(network, by_area[len(by_area) // 2], repeats) if repeats else None,
    )


class CallCost(NamedTuple):
    """Cost of one call, whatever it computes."""

    gflop: float
    """10^9 floating-point operations of matrix products and convolutions: two for each multiply-accumulate."""
    peak_mib: float
    """Most memory that tensors made by the call hold at once, MiB."""
    ms: float | None
    """Median milliseconds; None where not measured."""


def call_cost(call: Callable[[], Any], device: torch.device, repeats: int = 0) -> CallCost:
    """Count what a call does, by calling it.

    Args:
        call: without arguments, such as the prediction of a bag.
        device: it computes on.
        repeats: timed calls, after those that count; 0 = not measured.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    with LiveMemory() as memory:
        call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    ms = 1000 * statistics.median(seconds) if seconds else None
    return CallCost(counter.get_total_flops() / 1e9, memory.peak / 2**20, ms)


@torch.no_grad()
def flops(network: nn.Module, size: Size) -> int:
    """Floating-point operations of one image (height, width); two for each multiply-accumulate."""
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *size, device=device))
    return counter.get_total_flops()


@torch.no_grad()
def peak_bytes(network: nn.Module, size: Size) -> int:
    """Largest number of bytes of tensors alive at once in a forward pass without gradient, weights left out."""
    device = next(network.parameters()).device
    with LiveMemory() as memory:
        network(torch.zeros(1, 3, *size, device=device))
    return memory.peak


@torch.no_grad()
def latency(network: nn.Module, size: Size, repeats: int) -> float:
    """Median milliseconds of a forward pass of one image."""
    device = next(network.parameters()).device
    image = torch.rand(1, 3, *size, device=device)
    training = network.training
    network.eval()
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        network(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    network.train(training)
    return 1000 * statistics.median(seconds[1:])


class LiveMemory(TorchDispatchMode):
    """Counts the storage of every tensor that operations create, and gives it back when the storage dies."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {self._key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and self._key(leaf) not in given | self._known:
                self._add(leaf)
        return result

    @staticmethod
    def _key(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
