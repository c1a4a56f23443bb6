#!/usr/bin/env bash
# onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-11-28.
# Expected: the reference evaluator and ONNX Runtime agree on the size floor(6 * 7/6) of a Resize by 32-bit scales.
# Seen: one computes in 32 bits and one in 64; 7/6 in 32 bits is a little more or less than 7/6, so that sizes can differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
def sizes(side, scale):
    constants = [numpy_helper.from_array(numpy.array([1, scale], numpy.float32), "scales")]
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
                            nearest_mode="floor")
    graph = helper.make_graph([node], "resize", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    x = {"x": numpy.zeros((1, side), numpy.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, x)[0].shape[1], ReferenceEvaluator(model).run(None, x)[0].shape[1]
differ = []
for side in range(2, 20):
    for top in range(side + 1, 2 * side):
        runtime, reference = sizes(side, top / side)
        if runtime != reference:
            differ.append((side, top, runtime, reference))
print(f"{len(differ)} of the fractional scales give different sizes")
for side, top, runtime, reference in differ[:3]:
    print(f"{side} by {top}/{side}: ONNX Runtime {runtime}, reference evaluator {reference}")
assert differ, "this has changed"
PY
