#!/usr/bin/env bash
# ONNX Runtime 1.32.0 with onnx 1.23.2, seen 2026-12-01.
# Expected: a NaN in a feature map, say from an overflow, reaches the result, so that it can be noticed. The maximum of numbers and a NaN is a NaN
# in PyTorch and NumPy, and in ONNX Runtime's own Max and Relu.
# Seen: MaxPool, GlobalMaxPool, ReduceMax and ReduceMin keep a NaN at a few places of their window and drop it elsewhere, so that a
# network gives plausible scores for broken activations. GlobalAveragePool and ReduceMean keep it everywhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper
x = numpy.random.default_rng(0).normal(size=(1, 1, 7, 7)).astype(numpy.float32)
def kept(operation, shape, **attributes):
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    node = helper.make_node(operation, ["x", "x"] if operation == "Max" else ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "maximum", [value("x", x.shape)], [value("y", shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    places = 0
    for place in range(49):
        broken = x.copy()
        broken.flat[place] = numpy.nan
        places += bool(numpy.isnan(session.run(None, {"x": broken})[0]).any())
    print(f"{operation}: expected a NaN in the result for each of 49 places, seen for {places}")
    return places
one, all_places = [1, 1, 1, 1], [1, 1, 7, 7]
drop = [kept("GlobalMaxPool", one), kept("MaxPool", one, kernel_shape=[7, 7]), kept("ReduceMax", one, axes=[2, 3]), kept("ReduceMin", one, axes=[2, 3])]
keep = [kept("GlobalAveragePool", one), kept("ReduceMean", one, axes=[2, 3]), kept("Max", all_places), kept("Relu", all_places)]
assert max(drop) < 49 and min(keep) == 49, "this has changed"
PY
