"""Which tools read an ONNX file with sparse initializers: each is run, and its outputs are compared with ONNX Runtime's.

resprout prune cifar10_resnet20.onnx -s 0.9 --format onnx-sparse -o sparse.onnx
resprout prune cifar10_resnet20.onnx -s 0.9 -o dense.onnx
sparse_readers.py sparse.onnx dense.onnx

A tool that fails on the dense file too is not counted as one that cannot read sparse files. Prints a table in Markdown.
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile

import numpy as np

READERS = {
    "onnxruntime": "import onnxruntime as o; out = o.InferenceSession(path).run(None, {name: x})[0]",
    "onnx: load and check": "import onnx; onnx.checker.check_model(onnx.load(path)); out = None",
    "onnx: full check": "import onnx; onnx.checker.check_model(onnx.load(path), full_check=True); out = None",
    "onnx: shape inference": "import onnx; onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True); out = None",
    "onnx: version converter": "import onnx, onnx.version_converter as v; run(v.convert_version(onnx.load(path), 17)); out = None",
    "onnx: reference evaluator": (
        "import onnx.reference as r; out = r.ReferenceEvaluator(path).run(None, {name: x})[0]"
    ),
    "openvino": (
        "import openvino as ov; c = ov.Core(); hint = {'INFERENCE_PRECISION_HINT': 'f32'}; "
        "out = c.compile_model(c.read_model(path), 'CPU', hint)(x)[0]"
    ),
    "onnxslim": "import onnx, onnxslim; run(onnxslim.slim(onnx.load(path))); out = None",
    "onnx2torch": (
        "import torch, onnx2torch; out = onnx2torch.convert(path).eval()(torch.tensor(x)).detach().numpy()"
    ),
    "onnxconverter-common: float16": (
        "import onnx, onnxconverter_common.float16 as f; m = f.convert_float_to_float16(onnx.load(path), keep_io_types=True);"
        " run(m); out = None"
    ),
    "onnxruntime: int8 quantization": (
        "import onnxruntime, onnxruntime.quantization as q; q.quantize_dynamic(path, path + '.int8'); out = None"
    ),
}

PACKAGE = {"onnxruntime: int8 quantization": "onnxruntime", "onnxconverter-common: float16": "onnxconverter-common"}

CHILD = """
import sys
import numpy as np
path, array, output, code = sys.argv[1:]
x, name = np.load(array), "NAME"
def run(model):
    # What a tool writes must still compute.
    import onnxruntime
    onnxruntime.InferenceSession(model.SerializeToString()).run(None, {name: x})
scope = dict(path=path, x=x, name=name, run=run)
exec(code, scope)
if scope["out"] is not None:
    np.save(output, scope["out"])
"""


def read(path, code, folder, x, name):
    array, output = os.path.join(folder, "x.npy"), os.path.join(folder, "y.npy")
    np.save(array, x)
    if os.path.exists(output):
        os.remove(output)
    command = [sys.executable, "-c", CHILD.replace("NAME", name), path, array, output, code]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    if done.returncode != 0:
        return None, (lines[-1] if lines else f"ended by signal {-done.returncode}")[:160]
    return (np.load(output) if os.path.exists(output) else None), ""


def main():
    import onnxruntime

    sparse, dense = sys.argv[1:]
    session = onnxruntime.InferenceSession(dense)
    value = session.get_inputs()[0]
    shape = [dim if isinstance(dim, int) else 2 for dim in value.shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wanted = session.run(None, {value.name: x})[0]
    print("| tool | version | sparse file | dense file |\n| --- | --- | --- | --- |")
    for tool, code in READERS.items():
        package = PACKAGE.get(tool, tool.split(":")[0])
        version = importlib.metadata.version(package)
        words = []
        with tempfile.TemporaryDirectory() as folder:
            for path in (sparse, dense):
                out, error = read(path, code, folder, x, value.name)
                far = out is not None and np.abs(out - wanted).max() > 1e-3 * np.abs(wanted).max()
                words.append(f"no: {error}" if error else "WRONG OUTPUTS" if far else "yes")
        print(f"| {tool} | {version} | {words[0]} | {words[1]} |", flush=True)


if __name__ == "__main__":
    main()
