#!/usr/bin/env bash
# ONNX Runtime 1.32.0 with onnx 1.23.2, seen 2026-12-01.
# Expected: quantize_static gives each convolution a bias in the scale that the operator asks for: ONNX says that the bias of QLinearConv
# has the scale of the input times that of the weight.
# Seen: with QuantFormat.QOperator a bias that several convolutions share is quantised once, in the scale of the first. A head that is
# applied to several levels of a feature pyramid, as in RetinaNet and FCOS, has inputs of different scales. It adds the wrong bias at all
# levels but one. With QuantFormat.QDQ there is a bias for each.
# reduce_range keeps 8-bit products from saturating on CPUs without VNNI, which would be another matter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
random = numpy.random.default_rng(0)
normal = lambda *shape: random.normal(size=shape).astype(numpy.float32)
levels = {"fine": normal(1, 8, 8, 8), "coarse": normal(1, 8, 4, 4) * numpy.float32(20)}
nodes = [helper.make_node("Conv", [level, "weight", "bias"], [level + "_scores"], pads=[1, 1, 1, 1]) for level in levels]
value = lambda name, array: helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
constants = [numpy_helper.from_array(normal(8, 8, 3, 3) * numpy.float32(0.1), "weight"), numpy_helper.from_array(normal(8), "bias")]
graph = helper.make_graph(nodes, "head", [value(level, array) for level, array in levels.items()],
                          [value(level + "_scores", array) for level, array in levels.items()], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, "float.onnx")
class Images(CalibrationDataReader):
    def __init__(self):
        self.images = iter([levels])
    def get_next(self):
        return next(self.images, None)
def run(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, levels)
exact = run("float.onnx")
off = {}
for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    quantize_static("float.onnx", "int8.onnx", Images(), quant_format=form, per_channel=True, reduce_range=True)
    off[form.name] = [numpy.abs(seen - wanted).max() / numpy.abs(wanted).max() for seen, wanted in zip(run("int8.onnx"), exact)]
    print(f"{form.name}: expected a few hundredths at both levels; seen", dict(zip(levels, numpy.round(off[form.name], 3).tolist())))
assert max(off["QDQ"]) < 0.05 and max(off["QOperator"]) > 0.2, "this has changed"
PY
