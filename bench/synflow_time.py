"""Time of SynFlow's scoring and pruning against PyTorch: alternating in one run, same threads, medians.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout-cli
    python bench/synflow_time.py [ROUNDS_OF_SYNFLOW] [REPEATS] [ARCH]

PyTorch's way is that of the paper's code: absolute weights, an image of ones, |w dR/dw|, one threshold over
all scores by kthvalue, masks on the weights. In f32 its numbers overflow on ResNet-50 (infinite scores,
useless masks, the same work); in f64 they are right. Ours counts scoring and pruning, not the start of the
program. Prints seconds and ratios (PyTorch's time by ours: above 1 we are faster).
"""
import json
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torchvision

ROOT = __file__.rsplit("/", 2)[0]
THREADS, SPARSITY, IMAGE = 2, 0.9, (3, 224, 224)


def time_ours(arch, rounds):
    with tempfile.TemporaryDirectory() as folder:
        command = [f"{ROOT}/target/release/resprout", "score", "--arch", arch, "--method", f"synflow:rounds={rounds}"]
        command += ["--sparsity", str(SPARSITY), "--threads", str(THREADS), "--quiet", "--json", "-", "-o", f"{folder}/x.onnx"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["seconds"]


def time_theirs(net, rounds, dtype):
    start = time.perf_counter()
    weights = [p for p in net.parameters() if p.dim() > 1]
    masks = [torch.ones_like(w) for w in weights]
    with torch.no_grad():
        for value in net.state_dict().values():
            value.abs_()
    for step in range(1, rounds + 1):
        with torch.no_grad():
            for w, mask in zip(weights, masks):
                w.mul_(mask)
        net.zero_grad()
        net(torch.ones(1, *IMAGE, dtype=dtype)).sum().backward()
        scores = [(w.grad * w).detach().abs_() for w in weights]
        everything = torch.cat([score.flatten() for score in scores])
        removed = int((1 - (1 - SPARSITY) ** (step / rounds)) * len(everything))
        threshold = torch.kthvalue(everything, max(removed, 1)).values
        for mask, score in zip(masks, scores):
            mask.mul_((score > threshold).to(dtype))
    return time.perf_counter() - start


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    arch = sys.argv[3] if len(sys.argv) > 3 else "resnet-50"
    torch.set_num_threads(THREADS)
    rows = []
    for _ in range(repeats):
        row = [time_ours(arch, rounds)]
        for dtype in (torch.float32, torch.float64):
            net = getattr(torchvision.models, arch.replace("-", ""))(weights=None).eval().to(dtype)
            row.append(time_theirs(net, rounds, dtype))
        rows.append(row)
        print("ours {:.1f} s, PyTorch f32 {:.1f} s, f64 {:.1f} s".format(*row), flush=True)
    for name, at in (("f32", 1), ("f64", 2)):
        print(f"{arch}, {rounds} rounds: {statistics.median(row[at] / row[0] for row in rows):.2f} of PyTorch {name}")


if __name__ == "__main__":
    main()
