#!/usr/bin/env bash
# onnx 1.23.2 with ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: onnx's reference evaluator gives pools with ceil_mode the size that ONNX states, ceil((input + pads - kernel) / stride) + 1, and
# averages the pixels that lie under a window. A MaxPool of 3 pixels, padded by 1, at stride 1 keeps the size, with ceil_mode or without;
# the Inception blocks of torchvision's GoogLeNet have such a one.
# Seen: that MaxPool gives 2 rows and columns more, so that the evaluator cannot join the branches of such a block. The AveragePool of 3
# pixels at stride 3 over 7 has the right size and wrong averages in its last row and column. ONNX Runtime and the shape inference
# of onnx follow the standard.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
x = numpy.arange(49, dtype=numpy.float32).reshape(1, 1, 7, 7)
def check(operation, **attributes):
    node = helper.make_node(operation, ["x"], ["y"], kernel_shape=[3, 3], ceil_mode=1, **attributes)
    side = (7 + 2 * sum(attributes.get("pads", [0])[:1]) - 3 + attributes["strides"][0] - 1) // attributes["strides"][0] + 1
    value = lambda name, side: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, side, side])
    graph = helper.make_graph([node], "pool", [value("x", 7)], [value("y", side)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runtime, = session.run(None, {"x": x})
    reference, = ReferenceEvaluator(model).run(None, {"x": x})
    print(f"{operation} {attributes}: expected {side} x {side}, ONNX Runtime {runtime.shape[2:]}, reference evaluator {reference.shape[2:]}")
    return runtime[0, 0], reference[0, 0]
runtime, reference = check("MaxPool", strides=[1, 1], pads=[1, 1, 1, 1])
assert runtime.shape == (7, 7) and reference.shape == (9, 9), "this has changed"
runtime, reference = check("AveragePool", strides=[3, 3])
print(f"    the corner alone lies under the last window: expected {x[0, 0, 6, 6]}, ONNX Runtime {runtime[2, 2]}, reference evaluator {reference[2, 2]}")
assert runtime[2, 2] == 48 and reference[2, 2] != 48, "this has changed"
PY
