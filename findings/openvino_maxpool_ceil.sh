#!/usr/bin/env bash
# openvino 2026.4.1 with onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: a MaxPool with ceil_mode has no window that would start in the padding on the right (ONNX, MaxPool-22, and PyTorch): 7 pixels
# padded by 1 give 4 windows of 2 at stride 2.
# Seen: OpenVINO computes a fifth row and column, of which no pixel is in the image, and fills them with the lowest 32-bit float. Its
# AveragePool with the same attributes has 4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import numpy, onnx, onnxruntime, openvino
from onnx import TensorProto, helper
x = numpy.random.default_rng(0).uniform(0, 1, (1, 1, 7, 7)).astype(numpy.float32)
def run(operation):
    value = lambda name, side: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, side, side])
    node = helper.make_node(operation, ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    graph = helper.make_graph([node], "pool", [value("x", 7)], [value("y", 4)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    file = model.SerializeToString()
    core = openvino.Core()
    seen = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    runtime = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    print(f"{operation}: expected 4 x 4, ONNX Runtime {runtime.shape[2:]}, OpenVINO {seen.shape[2:]}, lowest number {seen.min():.3g}")
    return runtime, seen
runtime, seen = run("MaxPool")
assert runtime.shape == (1, 1, 4, 4) and seen.shape == (1, 1, 5, 5) and seen.min() < -1e38, "this has changed"
assert numpy.array_equal(seen[..., :4, :4], runtime), "this has changed"
runtime, seen = run("AveragePool")
assert runtime.shape == seen.shape == (1, 1, 4, 4), "this has changed"
PY
