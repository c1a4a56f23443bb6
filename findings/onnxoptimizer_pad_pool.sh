#!/usr/bin/env bash
# onnxoptimizer 0.4.2 with onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: onnxoptimizer's default passes keep what the network computes. A Pad writes zeros, which take part in the maximum; the padding
# of a MaxPool does not (ONNX, MaxPool: the maximum excludes the padding).
# Seen: fuse_pad_into_pool, one of the default passes, makes the zeros padding of the MaxPool. Where a border is negative it was 0, and now is
# not. Keras' ResNet50V2 begins so: convolution, ZeroPadding2D, MaxPooling2D, without a rectifier.
# A Pad in front of an AveragePool with padding of its own, which it does not count, is fused into padding that counts all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxoptimizer==0.4.2 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxoptimizer, onnxruntime
from onnx import TensorProto, helper, numpy_helper
assert "fuse_pad_into_pool" in onnxoptimizer.get_fuse_and_elimination_passes(), "this has changed"
x = -numpy.random.default_rng(0).uniform(1, 2, (1, 1, 6, 6)).astype(numpy.float32)
def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
def check(operation, side, **attributes):
    constants = [numpy_helper.from_array(numpy.array([0, 0, 1, 1, 0, 0, 1, 1]), "border"), numpy_helper.from_array(numpy.float32(0), "zero")]
    nodes = [helper.make_node("Pad", ["x", "border", "zero"], ["a"]), helper.make_node(operation, ["a"], ["y"], kernel_shape=[3, 3],
                                                                                     strides=[2, 2], **attributes)]
    value = lambda name, side: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, side, side])
    graph = helper.make_graph(nodes, "pool", [value("x", 6)], [value("y", side)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    before, fused = run(model), onnxoptimizer.optimize(model)
    after = run(fused)
    print(f"{operation} {attributes or ''}, left: {', '.join(node.op_type for node in fused.graph.node)}")
    print(f"    expected a corner of {before[0, 0, 0, 0]:.4f}, seen {after[0, 0, 0, 0]:.4f}; largest difference {abs(before - after).max():.4f}")
    return abs(before - after).max()
off = check("MaxPool", 3), check("AveragePool", 3), check("AveragePool", 4, pads=[1, 1, 1, 1])
assert off[0] > 1 and off[1] < 1e-6 and off[2] > 0.05, "this has changed"
PY
