#!/usr/bin/env bash
# ONNX Runtime 1.32.0, seen 2026-11-28.
# Expected: nearest_mode round_prefer_floor rounds down at exactly one half alone (ONNX, Resize-13), in the arithmetic of 32 bits.
# Seen: a coordinate within 1e-6 of one half counts as a tie: 3.4999998 in the mode round_prefer_ceil becomes 4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
def resize(side, scale, mode):
    constants = [numpy_helper.from_array(numpy.array([1, scale], numpy.float32), "scales")]
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest", nearest_mode=mode,
                            coordinate_transformation_mode="asymmetric")
    graph = helper.make_graph([node], "resize", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "l"])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": numpy.arange(side, dtype=numpy.float32)[None]})[0][0].astype(int)
one = numpy.float32(1)
found = []
for scale in (numpy.arange(40, 400) / 70).astype(numpy.float32):
    if scale == 1:
        continue
    got = resize(12, scale, "round_prefer_ceil")
    for at, pixel in enumerate(got):
        x = numpy.float32(at) / scale
        below = numpy.floor(x)
        nearly = x - below
        if numpy.float32(0.4999980) < nearly < numpy.float32(0.5) and below + 1 < 12:
            found.append((float(scale), at, repr(float(x)), int(below), int(pixel)))
for scale, at, x, expected, seen in found[:5]:
    print(f"scale {scale}, output {at}: coordinate {x}, expected pixel {expected}, seen {seen}")
assert any(seen == expected + 1 for *_, expected, seen in found), "this has changed"
PY
