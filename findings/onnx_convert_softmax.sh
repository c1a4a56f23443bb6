#!/usr/bin/env bash
# onnx 1.23.2 with ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: onnx.version_converter keeps what the network computes, or refuses, as it does for Clip and Pad from 11 to 10. Softmax-13 works along
# one axis; before, Softmax flattened all axes from that one on, and normalised them together.
# Seen: upwards the converter writes the flattening out. Downwards it only changes the number of the opset: a softmax over the channels of
# a segmentation sums to one over the whole image in the converted file. LogSoftmax is the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, version_converter
x = numpy.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(numpy.float32)
def run(model):
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
def check(operation, old, new, expected_kept):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape)
    graph = helper.make_graph([helper.make_node(operation, ["x"], ["y"], axis=1)], "scores", [value("x")], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", old)], ir_version=7)
    before, after = run(model), run(version_converter.convert_version(model, new))
    kept = numpy.allclose(before, after, atol=1e-5)
    print(f"{operation} from {old} to {new}: expected the same result, seen the same: {kept}; largest difference {abs(before - after).max():.3f}")
    if (operation, old) == ("Softmax", 13):
        print(f"    sums over channels at a pixel: {before.sum(1)[0, 0, 0]:.3f} before, {after.sum(1)[0, 0, 0]:.3f} after")
    assert kept == expected_kept, "this has changed"
check("Softmax", 11, 13, True)
check("Softmax", 13, 11, False)
check("LogSoftmax", 11, 13, True)
check("LogSoftmax", 13, 11, False)
PY
