#!/usr/bin/env bash
# onnxslim 0.1.98 with onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: onnxslim keeps what the network computes. ONNX aligns shapes at their last axes, so that a constant of n numbers behind a
# convolution scales the n columns of the image.
# Seen: where the convolution has n channels too, the Mul is multiplied into its weights, as if it scaled channels. The result is wrong
# without a warning. The same Add stays in the graph, and is right; so is a constant of the shape n x 1 x 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxslim==0.1.98 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime, onnxslim
from onnx import TensorProto, helper, numpy_helper
random = numpy.random.default_rng(0)
normal = lambda *shape: random.normal(size=shape).astype(numpy.float32)
x, weight = normal(1, 8, 8, 8), normal(8, 8, 3, 3)
def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
def check(operation, shape):
    nodes = [helper.make_node("Conv", ["x", "weight"], ["a"], pads=[1, 1, 1, 1]), helper.make_node(operation, ["a", "constant"], ["y"])]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape)
    constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(normal(*shape), "constant")]
    graph = helper.make_graph(nodes, "scaled", [value("x")], [value("y")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    before = run(model)
    slim = onnxslim.slim(model)
    off = numpy.abs(run(slim) - before).max() / numpy.abs(before).max()
    operations = ", ".join(node.op_type for node in slim.graph.node)
    print(f"{operation} with a constant of shape {shape}: expected a difference of 0, seen {off:.3f} of the largest value; left: {operations}")
    return off
assert check("Mul", (8,)) > 0.1 and max(check("Mul", (8, 1, 1)), check("Add", (8,)), check("Add", (8, 1, 1))) < 1e-5, "this has changed"
PY
