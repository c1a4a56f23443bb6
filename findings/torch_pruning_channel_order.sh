#!/usr/bin/env bash
# torch-pruning 1.6.1 with torch 2.15.0, seen 2026-12-01.
# Expected: Torch-Pruning removes the weights that belong to a removed channel. Where half of the channels are zero, removing them by
# magnitude changes nothing in the result, whatever lies between the convolution and the next layer.
# Seen: behind a ChannelShuffle, and behind a permutation to channels last that is then flattened, it takes the weights in the order that
# channels had before. Shapes fit, nothing warns, and the result is off by as much as its largest value.
# Without a permutation, or with a flatten of channels first, it is exact.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 torch-pruning==1.6.1 numpy
"$folder/venv/bin/python" - 2>"$folder/log" <<'PY' || { tail "$folder/log"; exit 1; }
import torch
import torch_pruning
torch.manual_seed(0)
class Network(torch.nn.Module):
    def __init__(self, between, last):
        super().__init__()
        self.first, self.between, self.last = torch.nn.Conv2d(3, 8, 3), between, last
        for channel in (0, 1, 4, 5):
            self.first.weight.data[channel] = self.first.bias.data[channel] = 0
    def forward(self, x):
        return self.last(self.between(self.first(x)))
shuffle = torch.nn.ChannelShuffle(2)
cases = {
    "a convolution": (torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3), True),
    "a flatten": (lambda x: x.flatten(1), torch.nn.Linear(128, 4), True),
    "a channel shuffle": (shuffle, torch.nn.Conv2d(8, 4, 3), False),
    "a flatten of channels last": (lambda x: x.permute(0, 2, 3, 1).flatten(1), torch.nn.Linear(128, 4), False),
}
x = torch.randn(1, 3, 6, 6)
for name, (between, last, exact) in cases.items():
    network = Network(between, last).eval()
    before = network(x)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    torch_pruning.pruner.MagnitudePruner(network, x, importance=importance, pruning_ratio=0.5, ignored_layers=[last]).step()
    off = float((network(x) - before).abs().max() / before.abs().max())
    kept = network.first.out_channels
    print(f"{name}: {kept} of 8 channels kept; expected a difference of 0, seen {off:.3f} of the largest value")
    assert kept == 4 and (off < 1e-5) == exact, "this has changed"
PY
