#!/usr/bin/env bash
# onnxslim 0.1.98, onnx 1.23.2, ONNX Runtime 1.32.0, seen 2026-11-28.
# Expected: a valid model with a sparse initializer stays a valid model when it is simplified.
# Seen: ONNX Runtime loads the file before and refuses it after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 onnxslim==0.1.98
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime, onnxslim
from onnx import TensorProto, helper, numpy_helper
values, places = numpy.array([1, 2, 3], numpy.float32), numpy.array([0, 5, 11], numpy.int64)
weight = helper.make_sparse_tensor(numpy_helper.from_array(values, "w"), numpy_helper.from_array(places, "w_indices"), [4, 3])
nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])])
graph.sparse_initializer.append(weight)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
onnx.checker.check_model(model)
def loads(model):
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error).splitlines()[0][:160]
    return "loads"
before = loads(model)
try:
    after = loads(onnxslim.slim(model))
except Exception as error:
    after = f"onnxslim: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
print(f"expected: loads, loads\nseen: {before}, {after}")
assert before == "loads" and after != "loads", "this has changed"
PY
