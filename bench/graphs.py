"""Every ONNX file of a folder: inspect, prune, checker, ONNX Runtime, and our forward against it.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout-cli -p resprout-runtime --examples --bins
    python bench/graphs.py FOLDER [FOLDER ...]

Graphs whose weights are filled with one value are also run with random weights, since equal
weights would hide mistakes in their order.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

ROOT = pathlib.Path(__file__).parent.parent / "target/release"


def input_shape(model):
    constants = {i.name for i in model.graph.initializer}
    value = next(i for i in model.graph.input if i.name not in constants)
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    return value.name, [dims[0] or 2, dims[1] or 3, dims[2] or 224, dims[3] or 224]


def randomise(model):
    """Fills become random initializers, scaled so that activations neither vanish nor explode."""
    random, constants = np.random.default_rng(0), {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    kept = []
    roles = {name: (node.op_type, i) for node in model.graph.node for i, name in enumerate(node.input)}
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = constants[node.input[0]].tolist()
        op, index = roles.get(node.output[0], ("", 0))
        fan_in = max(1, int(np.prod(shape[1:])))
        values = random.normal(0, (2 / fan_in) ** 0.5, shape)
        if op == "BatchNormalization" and index == 4 or len(shape) == 1:
            values = np.abs(random.normal(1, 0.2, shape)) + 0.1
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    model.ir_version = 4  # initializers need not be inputs any more
    del model.graph.node[:]
    model.graph.node.extend(kept)


def without_saturation(path, work):
    """The same model up to its last Softmax or Sigmoid: behind it, every error looks like none, or like a large one."""
    model = onnx.load(path)
    last = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    if last.op_type not in ("Softmax", "Sigmoid"):
        return path
    del model.graph.output[:]
    model.graph.output.append(helper.make_empty_tensor_value_info(last.input[0]))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model.graph.node.remove(last)
    onnx.save(model, work / "logits.onnx")
    return work / "logits.onnx"


def difference(path, images, work):
    path = without_saturation(path, work)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {session.get_inputs()[0].name: images})[0]
    (work / "in").write_bytes(images.tobytes())
    done = subprocess.run([ROOT / "examples/run_onnx", path, work / "in", work / "out", *map(str, images.shape)], capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    ours = np.fromfile(work / "out", np.float32).reshape(theirs.shape)
    return f"{np.abs(ours - theirs).max() / np.abs(theirs).max():.1e}"


def check(path, work, label):
    model = onnx.load(path)
    _, shape = input_shape(model)
    images = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    subprocess.run([ROOT / "resprout", "inspect", path], check=True, capture_output=True)
    pruned = work / "pruned.onnx"
    subprocess.run([ROOT / "resprout", "prune", path, "-o", pruned, "--sparsity", "0.5", "--repair", "none"], check=True, capture_output=True)
    onnx.checker.check_model(str(pruned))
    print(f"{label:40} dense {difference(path, images, work)}  pruned {difference(pruned, images, work)}", flush=True)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        for path in sorted(pathlib.Path(folder).glob("*.onnx")):
            with tempfile.TemporaryDirectory() as work:
                work = pathlib.Path(work)
                check(path, work, path.name)
                model = onnx.load(path)
                if any(n.op_type == "ConstantOfShape" and n.input[0] in {i.name for i in model.graph.initializer} for n in model.graph.node):
                    randomise(model)
                    onnx.save(model, work / "random.onnx")
                    check(work / "random.onnx", work, path.name + " (random weights)")
