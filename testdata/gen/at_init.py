"""Scores of pruning at initialisation in f64, GraSP's by double backward: golden values for tests/at_init.rs.

    pip install -r testdata/gen/requirements.txt
    python testdata/gen/at_init.py testdata/golden/at_init.safetensors

ResNet-20 with the weights of `fill`, sixteen images of noise; every 97th score of each layer is kept.
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from architectures import ThinResNet, fill, noise

EVERY = 97


def main(path):
    x = torch.from_numpy(noise("images", 16 * 3 * 1024)).reshape(16, 3, 32, 32)
    y = torch.arange(16) % 10

    def fresh():
        net = fill(ThinResNet(3)).double()
        return net, {name: p for name, p in net.named_parameters() if p.dim() > 1}

    scores = {}
    net, weights = fresh()
    grads = torch.autograd.grad(F.cross_entropy(net.train()(x), y), list(weights.values()))
    scores["snip"] = [(w * g).abs() for w, g in zip(weights.values(), grads)]
    net, weights = fresh()
    grads = torch.autograd.grad(F.cross_entropy(net.train()(x) / 200, y), list(weights.values()), create_graph=True)
    product = torch.autograd.grad(sum((g * g.detach()).sum() for g in grads), list(weights.values()))
    scores["grasp"] = [w * h for w, h in zip(weights.values(), product)]
    net, weights = fresh()
    with torch.no_grad():
        for value in net.state_dict().values():
            value.abs_()
    net.eval()(torch.ones(1, 3, 32, 32).double()).sum().backward()
    scores["synflow"] = [(w * w.grad).abs() for w in weights.values()]
    golden = {}
    for method, lists in scores.items():
        for name, values in zip(weights, lists):
            golden[f"{method}.{name}"] = values.detach().flatten()[::EVERY].numpy().astype(np.float32)
        print(method, [float(v.detach().abs().max()) for v in lists][:3])
    save_file(golden, path)


if __name__ == "__main__":
    main(sys.argv[1])
