#!/usr/bin/env bash
# openvino 2026.4.1 with onnx 1.23.2 and ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: Resize with antialias=1 widens its filter where it shrinks an image (ONNX, Resize-18), or is refused, as OpenVINO refuses the mode
# half_pixel_symmetric. torch.onnx.export writes it for interpolate(antialias=True).
# Seen: OpenVINO reads the file and leaves the attribute out without a warning: the result is that of antialias=0, to the last digits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import numpy, onnx, onnxruntime, openvino
from onnx import TensorProto, helper, numpy_helper
x = numpy.random.default_rng(0).uniform(0, 1, (1, 1, 8, 8)).astype(numpy.float32)
def run(**attributes):
    scales = numpy_helper.from_array(numpy.array([1, 1, 0.25, 0.25], numpy.float32), "scales")
    value = lambda name, side: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, side, side])
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)
    graph = helper.make_graph([node], "shrink", [value("x", 8)], [value("y", 2)], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    file = model.SerializeToString()
    core = openvino.Core()
    seen = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0], seen
far = lambda a, b: float(numpy.abs(a - b).max())
for mode in ("linear", "cubic"):
    (without, seen_without), (expected, seen) = run(mode=mode), run(mode=mode, antialias=1)
    print(f"{mode}, antialias=1: expected {expected.ravel().astype(float).round(3)}, seen {seen.ravel().astype(float).round(3)}, "
          f"which is within {far(seen, without):.0e} of antialias=0")
    assert max(far(seen_without, without), far(seen, without)) < 1e-5 and far(seen, expected) > 0.01, "this has changed"
PY
