#!/usr/bin/env bash
# onnxoptimizer 0.4.2 with onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: onnxoptimizer's default passes keep what the network computes. A 0 in the shape of a Reshape copies the length from that
# Reshape's own input (ONNX, Reshape).
# Seen: eliminate_consecutive_idempotent_ops, one of the default passes, connects the second of two Reshapes to the input of the first, as
# if the 0 meant the same there. Images cut into patches, and flattened patch by patch, come out flattened image by image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxoptimizer==0.4.2 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxoptimizer, onnxruntime
from onnx import TensorProto, helper, numpy_helper
assert "eliminate_consecutive_idempotent_ops" in onnxoptimizer.get_fuse_and_elimination_passes(), "this has changed"
x = numpy.arange(96, dtype=numpy.float32).reshape(2, 12, 4)
def shapes(last):
    constants = [numpy_helper.from_array(numpy.array(shape), name) for name, shape in (("patches", [8, 3, 4]), ("rows", last))]
    nodes = [helper.make_node("Reshape", ["x", "patches"], ["a"]), helper.make_node("Reshape", ["a", "rows"], ["y"])]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "flatten", [value("x", x.shape)], [value("y", [8, 12])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    run = lambda model: onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    before, after = run(model).shape, run(onnxoptimizer.optimize(model)).shape
    print(f"Reshape to [8, 3, 4], then to {last}: expected {before}, seen {after}")
    return before, after
assert shapes([0, -1]) == ((8, 12), (2, 48)) and shapes([8, -1]) == ((8, 12), (8, 12)), "this has changed"
PY
