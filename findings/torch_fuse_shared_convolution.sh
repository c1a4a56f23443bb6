#!/usr/bin/env bash
# torch 2.15.0, seen 2026-12-01.
# Expected: fuse_fx of torch.ao.quantization, and fuse of torch.fx.experimental.optimization, which fold a BatchNorm2d into the convolution
# before it, keep what the network computes in evaluation mode.
# Seen: a convolution that is called several times is folded as if each call were a layer of its own. A detection head that shares its
# convolutions over the levels of a pyramid, and has a BatchNorm2d for each level, gives wrong results without a warning.
# Two convolutions with one Parameter are folded correctly, and so is the file that torch.onnx.export writes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy
"$folder/venv/bin/python" - 2>"$folder/log" <<'PY' || { tail "$folder/log"; exit 1; }
import copy
import torch
from torch.ao.quantization.quantize_fx import fuse_fx
from torch.fx.experimental.optimization import fuse
torch.manual_seed(0)
def norm():
    layer = torch.nn.BatchNorm2d(8)
    for values in (layer.weight.data, layer.running_var):
        values.uniform_(0.5, 2)
    layer.running_mean.normal_()
    return layer
class Head(torch.nn.Module):
    def __init__(self, convolutions):
        super().__init__()
        self.convolutions = torch.nn.ModuleList(convolutions)
        self.norms = torch.nn.ModuleList([norm(), norm()])
    def forward(self, fine, coarse):
        return self.norms[0](self.convolutions[0](fine)), self.norms[1](self.convolutions[1](coarse))
one, other = torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, 3)
other.weight, other.bias = one.weight, one.bias
heads = {"one module, called twice": Head([one, one]).eval(), "two modules, one Parameter": Head([one, other]).eval()}
levels = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)
for name, head in heads.items():
    for fold in (fuse_fx, fuse):
        with torch.no_grad():
            exact, seen = head(*levels), fold(copy.deepcopy(head))(*levels)
        off = max(float((b - a).abs().max() / a.abs().max()) for a, b in zip(exact, seen))
        print(f"{fold.__name__}, {name}: expected a difference of 0, seen {off:.3f} of the largest value")
        assert off > 0.1 if name.startswith("one module") else off < 1e-4, "this has changed"
PY
