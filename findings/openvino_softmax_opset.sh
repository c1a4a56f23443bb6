#!/usr/bin/env bash
# openvino 2026.4.1 with onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: before opset 13, Softmax takes all axes from its axis on, by default 1, as one, and normalises them together (ONNX, Softmax-11).
# Seen: OpenVINO does so for files of opset 7 and 9, and for LogSoftmax. It computes a Softmax of opset 11 and 12 along the axis alone, which is
# opset 13's, without a warning. A spatial softmax, or attention over an image, of such a file is wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import numpy, onnx, onnxruntime, openvino
from onnx import TensorProto, helper
x = numpy.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(numpy.float32)
def agree(operation, opset):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape)
    graph = helper.make_graph([helper.make_node(operation, ["x"], ["y"], axis=1)], "scores", [value("x")], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    onnx.checker.check_model(model)
    file = model.SerializeToString()
    core = openvino.Core()
    seen = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    runtime = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    scores = numpy.exp(x.astype(numpy.float64))
    together = scores / scores.sum(axis=(1, 2, 3) if opset < 13 else 1, keepdims=True)
    expected = numpy.log(together) if operation == "LogSoftmax" else together
    assert numpy.abs(runtime - expected).max() < 1e-5, "this has changed"
    off = numpy.abs(seen - expected).max()
    print(f"{operation} of opset {opset}: expected a difference of 0, ONNX Runtime {numpy.abs(runtime - expected).max():.3f}, OpenVINO {off:.3f}")
    return off < 1e-5
for operation in ("Softmax", "LogSoftmax"):
    for opset in (7, 9, 11, 12, 13):
        assert agree(operation, opset) != (operation == "Softmax" and opset in (11, 12)), "this has changed"
PY
