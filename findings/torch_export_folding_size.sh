#!/usr/bin/env bash
# torch 2.15.0 with onnxscript 0.7.2, seen 2026-11-28.
# Expected: torch.onnx.export folds what depends on parameters alone, so weight standardisation leaves one convolution in the graph.
# Seen: it does so for weights of up to about 8,000 elements. Larger ones are standardised again at every inference, by a
# BatchNormalization in training mode.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 onnxscript==0.7.2 onnx==1.23.2 numpy
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import torch
class Standardised(torch.nn.Conv2d):
    def forward(self, x):
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = torch.nn.functional.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-8)
        return torch.nn.functional.conv2d(x, weight.reshape_as(self.weight), None, 1, 1)
def operations(channels):
    layer = Standardised(channels, channels, 3, bias=False).eval()
    program = torch.onnx.export(layer, (torch.randn(1, channels, 8, 8),), dynamo=True, verbose=False)
    return sorted(node.op_type for node in program.model_proto.graph.node)
for channels in (8, 30, 31, 64):
    print(f"{9 * channels * channels} weights: {', '.join(operations(channels))}")
assert operations(30) == ["Conv"] and "BatchNormalization" in operations(31), "this has changed"
PY
