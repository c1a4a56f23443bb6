#!/usr/bin/env bash
# ONNX Runtime 1.32.0, seen 2026-11-30.
# Expected: InstanceNormalization of a channel with a single pixel is the shift, exactly: the pixel is its own mean, and
# scale * (x - mean) / sqrt(variance + epsilon) is zero.
# Seen: it is off by 1e-4 and more for pixels around 10: mean and shift become one addend, scale * mean / sqrt(epsilon) is large, and
# the difference of two large numbers remains.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper
node = helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["y"], epsilon=1e-5)
value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
shape = [1, 8, 1, 1]
graph = helper.make_graph([node], "norm", [value("x", shape), value("scale", [8]), value("shift", [8])], [value("y", shape)])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
random = numpy.random.default_rng(0)
x, scale, shift = random.normal(0, 10, shape), random.uniform(0.5, 1.5, 8), random.normal(0, 1, 8)
x, scale, shift = (values.astype(numpy.float32) for values in (x, scale, shift))
seen = session.run(None, {"x": x, "scale": scale, "shift": shift})[0].ravel()
for pixel, expected, got in zip(x.ravel(), shift, seen):
    print(f"pixel {pixel:8.3f}: expected {expected:.7f}, seen {got:.7f}")
largest = numpy.abs(seen - shift).max()
print(f"largest difference {largest:.1e}")
assert largest > 5e-5, "this has changed"
PY
