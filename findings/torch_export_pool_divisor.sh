#!/usr/bin/env bash
# torch 2.15.0 with onnxscript 0.7.2, onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: torch.onnx.export of AvgPool2d(divisor_override=...) divides sums by that number, as its documentation says, or refuses it:
# AveragePool of ONNX has no such attribute.
# Seen: both exporters leave the divisor out without a warning, and the file divides by the size of the window. With divisor_override=1, the
# sum over a window, the result is 9 times too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.32.0 numpy
cd "$folder"
"$folder/venv/bin/python" - 2>"$folder/log" <<'PY' || { tail "$folder/log"; exit 1; }
import onnx, onnxruntime, torch
torch.manual_seed(0)
x = torch.rand(1, 2, 6, 6)
def ratio(divisor, dynamo):
    layer = torch.nn.AvgPool2d(3, divisor_override=divisor).eval()
    torch.onnx.export(layer, (x,), "pool.onnx", dynamo=dynamo, verbose=False)
    session = onnxruntime.InferenceSession("pool.onnx", providers=["CPUExecutionProvider"])
    seen = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    operations = ", ".join(node.op_type for node in onnx.load("pool.onnx").graph.node)
    quotients = seen / layer(x)
    print(f"divisor_override={divisor}, dynamo={dynamo}, {operations}: expected 1 times torch's result, seen {quotients.mean():.4f} times")
    assert quotients.std() < 1e-4, "this has changed"
    return float(quotients.mean())
for dynamo in (True, False):
    for divisor, wrong in ((None, 1), (1, 1 / 9), (4, 4 / 9)):
        assert abs(ratio(divisor, dynamo) - wrong) < 1e-4, "this has changed"
PY
