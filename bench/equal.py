"""How far outputs are from ONNX Runtime's, of models as they are and of the same pruned.

    cargo build --release -p resprout-cli
    python bench/equal.py 0.9 MODEL.onnx ...

The largest difference by the largest output, of a batch of four noise images, by `resprout bench --against onnxruntime`. A model
that one of the two refuses is listed with what it says.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import onnx
from graphs import input_shape

BINARY = pathlib.Path(__file__).parent.parent / "target/release/resprout"


def shape(model):
    _, dims = input_shape(onnx.load(model, load_external_data=False))
    return ",".join(map(str, dims[1:]))


def difference(model, image):
    command = [BINARY, "bench", model, "--against", "onnxruntime", "--python", sys.executable, "--rounds", "1", "--json", "-"]
    for batch in ("4", "1"):
        done = subprocess.run([*command, "--batch", batch, "--input-shape", image], capture_output=True, text=True)
        if done.returncode == 0:
            return f"{json.loads(done.stdout)['rows'][0]['baseline']['difference']:.1e}"
    return done.stderr.strip().splitlines()[-1][:150]


def main():
    with tempfile.TemporaryDirectory() as folder:
        for model in sys.argv[2:]:
            image = shape(model)
            found = [difference(model, image)]
            pruned = pathlib.Path(folder) / "pruned.onnx"
            pruned.unlink(missing_ok=True)
            prune = [BINARY, "prune", model, "-o", pruned, "--sparsity", sys.argv[1], "--no-evaluation"]
            done = subprocess.run(prune, capture_output=True, text=True)
            found.append(difference(pruned, image) if done.returncode == 0 else done.stderr.strip()[:150])
            print(f"| {pathlib.Path(model).name} | {image} | {found[0]} | {found[1]} |", flush=True)


if __name__ == "__main__":
    main()
