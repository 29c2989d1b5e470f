"""The networks of the recorded runs: one small function per architecture."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from benchmarks.tasks import Data

Network = tuple[Callable[[Any], Any], list[Any]]  # forward pass, parameters

CODE = 6
"""Width of the code of a `vae`, whose outputs are the image, then the means and the log variances of the code."""


def _layers(data: Data, hidden: list[int], activation: str = "ReLU") -> Network:
    from torch import nn

    shape = data.train.x.shape[1:]
    layers: list[Any] = [nn.Embedding(data.tokens, 24)] if data.tokens else []
    layers.append(nn.Flatten())
    for inputs, outputs in pairwise([math.prod(shape) * (24 if data.tokens else 1), *hidden, data.outputs]):
        layers += [nn.Linear(inputs, outputs), getattr(nn, activation)()]
    network = nn.Sequential(*layers[:-1])
    return network, list(network.parameters())


def linear(data: Data) -> Network:
    """One linear layer."""
    return _layers(data, [])


def mlp(data: Data) -> Network:
    """Two hidden layers of 64."""
    return _layers(data, [64, 64])


def wide_mlp(data: Data) -> Network:
    """One hidden layer of 128."""
    return _layers(data, [128])


def sigmoid_mlp(data: Data) -> Network:
    """Three hidden sigmoid layers of 48, which learn nothing for a while at the start."""
    return _layers(data, [48, 48, 48], "Sigmoid")


def autoencoder(data: Data) -> Network:
    """A bottleneck of 10 between two layers of 48."""
    return _layers(data, [48, 10, 48])


def vae(data: Data) -> Network:
    """A variational autoencoder; the code has noise only where gradients are wanted."""
    import torch
    from torch import nn

    encoder = nn.Sequential(nn.Linear(data.outputs, 48), nn.ReLU(), nn.Linear(48, 2 * CODE))
    decoder = nn.Sequential(nn.Linear(CODE, 48), nn.ReLU(), nn.Linear(48, data.outputs))

    def forward(x: Any) -> Any:
        code = encoder(x)
        mean, log_variance = code.chunk(2, dim=1)
        if torch.is_grad_enabled():
            mean = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return torch.cat([decoder(mean), code], dim=1)

    return forward, [*encoder.parameters(), *decoder.parameters()]


def cnn(data: Data) -> Network:
    """Two small convolutions on the 8x8 image and a linear layer."""
    from torch import nn

    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(48, data.outputs),
    )
    return network, list(network.parameters())


def _recurrent(data: Data, kind: str) -> Network:
    """A cell of 24 over letters with an output at each, or over rows of 8 pixels or a series with one at the end."""
    from torch import nn

    last = data.train.x.shape[-1]
    embed = nn.Embedding(data.tokens, 8) if data.tokens else nn.Unflatten(1, (-1, 8)) if last == 64 else nn.Identity()
    cell = getattr(nn, kind)(8 if data.tokens or last == 64 else last, 24, batch_first=True)
    head = nn.Linear(24, data.outputs)
    each = data.train.y.ndim == 2

    def forward(x: Any) -> Any:
        states = cell(embed(x))[0]
        return head(states if each else states[:, -1])

    return forward, [*embed.parameters(), *cell.parameters(), *head.parameters()]


def gru(data: Data) -> Network:
    """A GRU."""
    return _recurrent(data, "GRU")


def lstm(data: Data) -> Network:
    """An LSTM."""
    return _recurrent(data, "LSTM")


def transformer(data: Data) -> Network:
    """Two causal layers of width 32 with two heads, over letters; an output at each letter or after the last."""
    import torch
    from torch import nn

    length, width = data.train.x.shape[1], 32
    embed, place = nn.Embedding(data.tokens, width), nn.Parameter(0.1 * torch.randn(length, width))
    layers = [nn.TransformerEncoderLayer(width, 2, 64, 0.0, batch_first=True, norm_first=True) for _ in range(2)]
    head = nn.Linear(width, data.outputs)
    mask = nn.Transformer.generate_square_subsequent_mask(length)
    each = data.train.y.ndim == 2

    def forward(x: Any) -> Any:
        states = embed(x) + place
        for layer in layers:
            states = layer(states, src_mask=mask)
        return head(states if each else states[:, -1])

    return forward, [*(weight for module in (embed, *layers, head) for weight in module.parameters()), place]


NETWORKS: dict[str, Callable[[Data], Network]] = {
    build.__name__: build
    for build in (linear, mlp, wide_mlp, sigmoid_mlp, autoencoder, vae, cnn, gru, lstm, transformer)
}
