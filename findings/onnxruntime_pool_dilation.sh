#!/usr/bin/env bash
# ONNX Runtime 1.32.0, seen 2026-11-28.
# Expected: SAME_UPPER pads so that the output has ceil(input / stride) positions, whatever the dilation (ONNX, AveragePool-19).
# Seen: the padding is that of a window without dilation, so the output is shorter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper
side, kernel, dilation = 12, 3, 2
node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[kernel], dilations=[dilation], strides=[1], auto_pad="SAME_UPPER")
graph = helper.make_graph([node], "pool", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, side])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "l"])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
onnx.checker.check_model(model)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
seen = session.run(None, {"x": numpy.zeros((1, 1, side), numpy.float32)})[0].shape[2]
print(f"expected: {side} positions\nseen: {seen} positions")
assert seen == 10, "this has changed"
PY
