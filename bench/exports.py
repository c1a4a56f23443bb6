"""Every built-in architecture with PyTorch's weights: the exported ONNX file under ONNX Runtime against
PyTorch itself, and the weights there and back.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout-cli
    python bench/exports.py

Prints the largest difference of the outputs by their largest value, and whether the .pth file that came
back loads into the PyTorch module with every number unchanged.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime
import torch

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "testdata/gen"))
from architectures import ARCHITECTURES, fill, noise  # noqa: E402


def convert(*arguments):
    subprocess.run([ROOT / "target/release/resprout", "convert", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def check(name, build, image, folder):
    net = fill(build())
    there, onnx, back = folder / "there.pth", folder / "model.onnx", folder / "back.pth"
    torch.save(net.state_dict(), there)
    convert(there, "--arch", name, "-o", onnx)
    convert(onnx, "-o", back)
    x = noise("input", 2 * int(np.prod(image))).astype(np.float32).reshape(2, *image)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    y = session.run(None, {session.get_inputs()[0].name: x})[0]
    expected = net(torch.from_numpy(x)).numpy()
    again = build().eval()
    again.load_state_dict(torch.load(back, weights_only=True))
    same = all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    same &= all(torch.equal(a, b) for a, b in zip(net.buffers(), again.buffers(), strict=True) if a.is_floating_point())
    error = float(np.abs(y - expected).max() / np.abs(expected).max())
    print(f"| {name} | {sum(p.numel() for p in net.parameters()):,} | {error:.1e} | {'equal' if same else 'DIFFERENT'} |", flush=True)
    return same and error < 1e-4


def main():
    torch.set_grad_enabled(False)
    print("| architecture | parameters | ONNX Runtime against PyTorch | .pth there and back |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        good = [check(name, *row, pathlib.Path(folder)) for name, row in ARCHITECTURES.items()]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
