"""Weight files of real networks, saved in every way that PyTorch has, read by resprout and compared number by number.

    pip install -r testdata/gen/requirements.txt timm
    cargo build --release -p resprout-cli
    python bench/weight_files.py [PROGRAM]

Each network is exported to ONNX with other weights; `resprout convert --weights FILE` puts those of the file into it.
"""
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import safetensors
import timm
import torch
import torchvision
from onnx import numpy_helper
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/resprout"
NETWORKS = {
    "torchvision resnet18": lambda: torchvision.models.resnet18(),
    "torchvision mobilenet_v2": lambda: torchvision.models.mobilenet_v2(),
    "timm mobilenetv3_large_100": lambda: timm.create_model("mobilenetv3_large_100"),
}


def floats(state, kind):
    return {name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()}


def legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def without_checksums(state, path):
    torch.serialization.set_crc32_options(False)
    torch.save(state, path)
    torch.serialization.set_crc32_options(True)


def checkpoint(state, path):
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}, "best": 0.5}, path)


# How it is saved, the file's ending, and the type of the numbers.
LAYOUTS = {
    "zip": (torch.save, "pth", torch.float32),
    "older, no zip": (legacy, "pth", torch.float32),
    "no checksums": (without_checksums, "pth", torch.float32),
    "checkpoint, `module.`": (checkpoint, "pth.tar", torch.float32),
    "zip, float16": (torch.save, "bin", torch.float16),
    "zip, bfloat16": (torch.save, "ckpt", torch.bfloat16),
    "zip, float64": (torch.save, "pt", torch.float64),
    "safetensors": (save_file, "safetensors", torch.float32),
    "safetensors, float16": (save_file, "safetensors", torch.float16),
    "safetensors, bfloat16": (save_file, "safetensors", torch.bfloat16),
}


def filled(state, seed):
    """As a trained network has them: no zeros and ones, and some batches counted."""
    generator = torch.Generator().manual_seed(seed)
    fill = lambda value: torch.rand(value.shape, generator=generator) + 0.1 if value.is_floating_point() else value + 5
    return {name: fill(value) for name, value in state.items()}


def carrier(net, path):
    """The network as ONNX, every parameter by its own name: the exporter would merge those that are equal."""
    net.load_state_dict(filled(net.state_dict(), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), (torch.zeros(1, 3, 224, 224),), path, dynamo=False, do_constant_folding=False, opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE, verbose=False,
        )


def read(model, weights, out):
    command = [PROGRAM, "convert", model, "--weights", weights, "-o", out]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(out).graph.initializer}


def check(build, folder):
    """For each layout whether every number that the network computes with is the file's."""
    state = filled(build().state_dict(), 0)
    carrier(build(), folder / "carrier.onnx")
    results = []
    for save, ending, kind in LAYOUTS.values():
        path = folder / f"weights.{ending}"
        saved = floats(state, kind)
        save(saved, path)
        found = read(folder / "carrier.onnx", path, folder / "out.onnx")
        wanted = {name: value.float().numpy() for name, value in saved.items() if value.is_floating_point()}
        same = isinstance(found, dict) and all(np.array_equal(found[name], value) for name, value in wanted.items())
        results.append("equal" if same else found if isinstance(found, str) else "DIFFERENT")
    return results


def main():
    torch.set_grad_enabled(False)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}, safetensors {safetensors.__version__}\n")
    print(f"| network | {' | '.join(LAYOUTS)} |\n| --- |{' --- |' * len(LAYOUTS)}")
    good = True
    for name, build in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            results = check(build, pathlib.Path(folder))
        good &= set(results) == {"equal"}
        print(f"| {name} | {' | '.join(results)} |", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
