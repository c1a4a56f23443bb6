"""A training step of ResNet-20 against PyTorch: alternating in one run, batch 128, SGD with momentum and
weight decay, same threads, medians.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout-cli
    python bench/training_step.py [ROUNDS] [ARCH]

Each round trains both for the same number of steps, after others that do not count. Ours reads its images
from CIFAR-10 files, cuts and mirrors them, on threads of its own; PyTorch has them ready in memory. Prints
milliseconds per step, and the median of the rounds' ratios: PyTorch's time by ours, above 1 we are faster.
Prints the share of our time that was spent waiting for images, too.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "testdata/gen"))
from architectures import ARCHITECTURES  # noqa: E402

THREADS, BATCH, STEPS = 2, 128, 12


def images(folder):
    """Noise in CIFAR-10's format: the speed does not depend on what can be seen."""
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (BATCH * STEPS, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(len(records)) % 10
    path = pathlib.Path(folder) / "data_batch_1.bin"
    records.tofile(path)
    return path


def time_ours(arch, path, folder):
    command = [ROOT / "target/release/resprout", "train", "--arch", arch, "--data", path, "--method", "dense", "--sparsity", "0"]
    command += ["--epochs", "2", "--batch", str(BATCH), "--rate", "0.01", "--weight-decay", "1e-4", "--crop", "4", "--flip"]
    command += ["--validation", "0", "--threads", str(THREADS), "--quiet", "--json", "-", "--output", folder + "/run"]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    outcome = json.loads(done.stdout)["outcome"]
    return BATCH / outcome["rows"][1]["images_per_second"], outcome["waiting"]


def time_theirs(net, optimiser, x, y):
    def step():
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    step(), step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS


def main(rounds=7, arch="resnet-20"):
    torch.set_num_threads(THREADS)
    build, image = ARCHITECTURES[arch]
    net = build().train()
    optimiser = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-4)
    x, y = torch.randn(BATCH, *image), torch.arange(BATCH) % 10
    rows = []
    for _ in range(int(rounds)):
        with tempfile.TemporaryDirectory() as folder:
            ours, waiting = time_ours(arch, images(folder), folder)
        rows.append((ours, time_theirs(net, optimiser, x, y), waiting))
    print(json.dumps({
        "arch": arch,
        "batch": BATCH,
        "threads": THREADS,
        "torch": torch.__version__,
        "ours_ms": round(statistics.median(row[0] for row in rows) * 1e3, 1),
        "torch_ms": round(statistics.median(row[1] for row in rows) * 1e3, 1),
        "ratio": round(statistics.median(row[1] / row[0] for row in rows), 3),
        "waiting": round(statistics.median(row[2] for row in rows), 4),
    }))


if __name__ == "__main__":
    main(*sys.argv[1:])
