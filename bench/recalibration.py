"""`resprout prune --repair bn` against a PyTorch script that does the same, alternating, whole processes.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout-cli
    python bench/recalibration.py REFERENCE_SCRIPT MODEL.onnx CIFAR_BATCH.bin [ROUNDS]

REFERENCE_SCRIPT is a module with `Net(path)`, `prune(net, rule, sparsity)` and `net.run(images,
recal=True)`. Both sides read the model and 1024 images, prune to 80 % (global magnitude), and
recalibrate exactly; ours also writes the model, reads it back, and reports, without the optional
evaluation. Start-up is counted on both sides and also measured alone.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

RESPROUT = pathlib.Path(__file__).parent.parent / "target/release/resprout"
IMAGES, THREADS = 1024, 2

THEIRS = """
import importlib.util, sys, time
import numpy as np
spec = importlib.util.spec_from_file_location("reference", sys.argv[1])
reference = importlib.util.module_from_spec(spec); spec.loader.exec_module(reference)
import torch
torch.set_num_threads(%d)
start = time.perf_counter()
records = np.fromfile(sys.argv[3], np.uint8).reshape(-1, 3073)[:%d, 1:].reshape(-1, 3, 32, 32)
images = reference.norm(torch.from_numpy(records.copy()).float(), "torchvision")
net = reference.Net(sys.argv[2])
reference.prune(net, "global", 0.8)
net.run(images, recal=True)
print(time.perf_counter() - start)
""" % (THREADS, IMAGES)


def main(reference, model, batch, rounds=5):
    with tempfile.TemporaryDirectory() as folder:
        ours = [RESPROUT, "prune", model, "-o", f"{folder}/out.onnx", "-s", "0.8", "--allocation", "global", "--repair", "bn",
                "--calibration", batch, "--calibration-images", str(IMAGES), "--mean", "0.485,0.456,0.406",
                "--std", "0.229,0.224,0.225", "--threads", str(THREADS), "--no-evaluation", "--json", "-"]
        theirs = [sys.executable, "-c", THEIRS, reference, model, batch]
        rows = []
        for _ in range(int(rounds)):
            start = time.perf_counter()
            subprocess.run(ours, check=True, capture_output=True)
            middle = time.perf_counter()
            inner = float(subprocess.run(theirs, check=True, capture_output=True, text=True).stdout)
            rows.append((middle - start, time.perf_counter() - middle, inner))
    print(json.dumps({
        "model": pathlib.Path(model).name,
        "ours_s": round(statistics.median(r[0] for r in rows), 2),
        "pytorch_process_s": round(statistics.median(r[1] for r in rows), 2),
        "pytorch_without_start_up_s": round(statistics.median(r[2] for r in rows), 2),
        "ratio": round(statistics.median(r[1] / r[0] for r in rows), 3),
        "ratio_without_their_start_up": round(statistics.median(r[2] / r[0] for r in rows), 3),
    }))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
