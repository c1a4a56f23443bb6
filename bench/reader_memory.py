"""Peak memory of each reader beside the size of its file: at most four times the file and 64 MB.

    cargo build --release -p resprout-cli
    python bench/reader_memory.py FILE [FILE ...]

Networks (.onnx, sparse .safetensors) are inspected. Images (.npy, .npz, IDX, CIFAR's .bin) are opened for a network that takes none of them, so
that nothing is computed: the error comes when they have been read. Weights are given as ARCH=FILE (resnet-50=weights.pth). What the program takes
without any file is measured and taken off.
"""
import os
import pathlib
import subprocess
import sys

from reference_runs import RESPROUT

DIGITS = pathlib.Path(__file__).parent.parent / "crates/resprout-cli/assets/digits.onnx"


def peak(*words):
    process = subprocess.Popen([RESPROUT, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    return usage.ru_maxrss * 1024, "" if status == 0 else errors.strip().splitlines()[-1][:60]


def words(name):
    arch, _, weights = name.partition("=")
    if weights:
        return weights, ["inspect", weights, "--arch", arch]
    if name.endswith((".onnx", ".safetensors")):
        return name, ["inspect", name]
    return name, ["eval", DIGITS, "--data", name, "--limit", "1"]


def main(names):
    empty, _ = peak("inspect", DIGITS)
    print(f"{'file':40} {'MB':>8} {'peak MB':>8} {'times':>6}  within")
    for name in names:
        path, command = words(name)
        size = pathlib.Path(path).stat().st_size
        most, error = peak(*command)
        most = max(0, most - empty)
        within = "yes" if most <= 4 * size + 64e6 else "NO"
        print(f"{pathlib.Path(path).name:40} {size / 1e6:8.2f} {most / 1e6:8.2f} {most / max(size, 1):6.2f}  {within}  {error}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
