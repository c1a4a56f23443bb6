"""A training step by density against PyTorch and SparseProp: in turns in one run, batch 128, SGD with momentum and weight decay,
two threads, medians of the rounds.

    pip install torch
    cargo build --release -p resprout-train --example step
    python bench/sparse_training.py resnet-18-cifar 3 1 0.1 0.05 0.02
    python bench/sparse_training.py resnet-20 3 1 0.1

    pip install pybind11 scipy && pip install --no-build-isolation sparseprop==0.1.14
    python bench/sparse_training.py resnet-18-cifar 3 1 0.1 0.05 0.02 --against eager,channels-last,compile,sparseprop

Each round times one step at each density (three for ResNet-20), after one that does not count, and then as many of each rival.
All have their images in memory. Masks are random, with the same density in every layer. SparseProp has a network for each density
below 0.2, converted by its own function for whole networks. Prints milliseconds and the medians of the rounds' ratios: a
rival's time by ours.
"""
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

STEP = pathlib.Path(__file__).parent.parent / "target/release/examples/step"
THREADS, BATCH = 2, 128


class Block(nn.Module):
    """A basic block; a new width begins with zeros (option A) or with a convolution."""

    def __init__(self, before, width, stride, with_zeros):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stride, self.more = stride, (width - before) // 2
        self.down = None
        if before != width and not with_zeros:
            self.down = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.down is not None:
            x = self.down(x)
        elif self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(y + x)


def network(arch):
    widths, blocks, with_zeros = {"resnet-20": ((16, 32, 64), 3, True), "resnet-18-cifar": ((64, 128, 256, 512), 2, False)}[arch]
    layers, before = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()], widths[0]
    for width in widths:
        for index in range(blocks):
            layers.append(Block(before, width, 2 if index == 0 and width != widths[0] else 1, with_zeros))
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)).train()


def stepper(net, channels_last=False):
    """A function that makes one step and returns its milliseconds."""
    optimiser = torch.optim.SGD(net.parameters(), 0.001, 0.9, weight_decay=1e-4)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)

    def step():
        start = time.perf_counter()
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return (time.perf_counter() - start) * 1e3

    step()
    return step


def sparseprop(arch, density):
    from sparseprop.utils import swap_modules_with_sparse

    net = network(arch)
    with torch.no_grad():
        for parameter in (p for p in net.parameters() if p.dim() > 1):
            order = torch.randperm(parameter.numel())
            parameter.view(-1)[order[round(density * parameter.numel()):]] = 0
    with contextlib.redirect_stdout(sys.stderr):
        return swap_modules_with_sparse(net, (BATCH, 3, 32, 32)).train()


def rivals(arch, densities, names):
    made = {"eager": lambda: stepper(network(arch)), "channels-last": lambda: stepper(network(arch), channels_last=True),
            "compile": lambda: stepper(torch.compile(network(arch)))}
    found = {}
    for name in names:
        if name == "sparseprop":
            few = [density for density in densities if float(density) < 0.2]
            found |= {f"sparseprop {density}": stepper(sparseprop(arch, float(density))) for density in few}
        else:
            found[name] = made[name]()
    return found


def main(arch, rounds, *arguments):
    torch.set_num_threads(THREADS)
    names, densities = ["eager"], list(arguments)
    if "--against" in densities:
        at = densities.index("--against")
        names = densities[at + 1].split(",")
        del densities[at:at + 2]
    steps = 3 if arch == "resnet-20" else 1
    others = rivals(arch, densities, names)
    rows = []
    for _ in range(int(rounds)):
        command = [STEP, arch, str(BATCH), str(steps), *densities]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS)}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        ours = [float(line.split()[1]) for line in done.stdout.splitlines()]
        rows.append((ours, {name: statistics.median(step() for _ in range(steps)) for name, step in others.items()}))
    shown = {"arch": arch, "batch": BATCH, "threads": THREADS, "torch": torch.__version__}
    shown |= {name: {"ms": round(statistics.median(row[1][name] for row in rows), 1)} for name in others}
    for index, density in enumerate(densities):
        shown[density] = {"ms": round(statistics.median(row[0][index] for row in rows), 1)}
        for name in others:
            if name.startswith("sparseprop") and name.split()[1] != density:
                continue
            shown[density][name.split()[0]] = round(statistics.median(row[1][name] / row[0][index] for row in rows), 2)
    print(json.dumps(shown))


if __name__ == "__main__":
    main(*sys.argv[1:])
