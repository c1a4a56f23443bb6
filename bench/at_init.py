"""Scores and masks of pruning at initialisation against PyTorch in f64, with double backward for GraSP.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout-cli
    python bench/at_init.py MNIST_FOLDER CIFAR10_FOLDER [NETWORK ...]

The same fresh weights and the same 128 images for both. Prints the share of weights on which the masks
agree (SNIP in one round, SynFlow in 100) and Spearman's rank correlation of the scores. Prints the same for
PyTorch itself in f32, because that is what f32 can give.
"""
import gzip
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "testdata/gen"))
from architectures import ARCHITECTURES  # noqa: E402

COUNT, SPARSITY = 128, 0.95


def resprout(*arguments):
    subprocess.run([ROOT / "target/release/resprout", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def mnist(source, folder):
    """The first images as files of their own, and as tensors."""
    def read(name, head):
        path = pathlib.Path(source) / name
        data = gzip.decompress(path.with_name(name + ".gz").read_bytes()) if not path.exists() else path.read_bytes()
        return np.frombuffer(data, np.uint8, offset=head)
    pixels, labels = read("train-images-idx3-ubyte", 16)[: COUNT * 784], read("train-labels-idx1-ubyte", 8)[:COUNT]
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, COUNT, 28, 28) + pixels.tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, COUNT) + labels.tobytes())
    x = torch.tensor(pixels.reshape(-1, 1, 28, 28).copy()).double() / 255
    return folder, (x - 0.1307) / 0.3081, torch.tensor(labels.copy()).long()


def cifar(source, folder):
    data = np.fromfile(pathlib.Path(source) / "data_batch_1.bin", np.uint8, COUNT * 3073)
    path = folder / "data_batch_1.bin"
    data.tofile(path)
    rows = data.reshape(COUNT, 3073)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).double().reshape(1, 3, 1, 1)
    std = torch.tensor([0.2470, 0.2435, 0.2616]).double().reshape(1, 3, 1, 1)
    x = torch.tensor(rows[:, 1:].reshape(-1, 3, 32, 32).copy()).double() / 255
    return path, (x - mean) / std, torch.tensor(rows[:, 0].copy()).long()


def weights(net):
    return {name: p for name, p in net.named_parameters() if p.dim() > 1}


def snip(net, x, y):
    named = weights(net)
    grads = torch.autograd.grad(F.cross_entropy(net.train()(x), y), list(named.values()))
    return {name: (w * g).abs().detach() for (name, w), g in zip(named.items(), grads)}


def grasp(net, x, y):
    named = weights(net)
    loss = F.cross_entropy(net.train()(x) / 200, y)
    grads = torch.autograd.grad(loss, list(named.values()), create_graph=True)
    product = torch.autograd.grad(sum((g * g.detach()).sum() for g in grads), list(named.values()))
    return {name: (w * h).detach() for (name, w), h in zip(named.items(), product)}


def synflow_once(net, image, dtype):
    named = weights(net)
    net.zero_grad()
    net.eval()(torch.ones(1, *image, dtype=dtype)).sum().backward()
    return {name: (w * w.grad).abs().detach() for name, w in named.items()}


def synflow(net, image, dtype, rounds=100):
    """Tanaka et al., algorithm 1, with the exponential schedule; returns the last scores and the masks."""
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights(net).items()}
    total = sum(mask.numel() for mask in masks.values())
    for k in range(1, rounds + 1):
        scores = synflow_once(net, image, dtype)
        density = (1 - SPARSITY) ** (k / rounds)
        masks = keep(scores, round(density * total))
        with torch.no_grad():
            for name, w in weights(net).items():
                w.mul_(masks[name])
    return scores, masks


def keep(scores, count):
    everything = torch.cat([s.flatten() for s in scores.values()])
    threshold = torch.topk(everything, count).values[-1]
    return {name: s >= threshold for name, s in scores.items()}


def spearman(a, b):
    ranks = [np.argsort(np.argsort(v)) for v in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def compare(arch, method, data, image, x, y, folder):
    init = folder / "init.pth"
    resprout("convert", "--arch", arch, "--init", "kaiming-in", "-o", init)
    resprout("score", init, "--arch", arch, "--method", method, "--sparsity", SPARSITY, "--data", data, "--batch", COUNT,
             "-o", folder / "masks.safetensors", "--scores", folder / "scores.safetensors")
    ours, masked = load_file(folder / "scores.safetensors"), load_file(folder / "masks.safetensors")
    start = torch.load(init, weights_only=True)
    scores, masks = oracle(arch, method, start, image, x, y, torch.float64)
    narrow = oracle(arch, method, start, image, x, y, torch.float32)
    assert set(scores) == set(ours), set(scores) ^ set(ours)
    flat = lambda tensors: np.concatenate([np.asarray(tensors[name]).ravel() for name in scores])
    same = lambda other: f"{(flat(masks) == flat(other)).mean() * 100:.4f} %"
    ranks = lambda other: f"{spearman(flat(other), flat(scores)):.6f}"
    kept = {name: masked[name + ".mask"] for name in scores}
    print(f"| {arch} | {method} | {same(kept)} | {same(narrow[1])} | {ranks(ours)} | {ranks(narrow[0])} |", flush=True)


def oracle(arch, method, start, image, x, y, dtype):
    net = ARCHITECTURES[arch][0]().to(dtype)
    net.load_state_dict({name: t.to(dtype) if t.is_floating_point() else t for name, t in start.items()})
    if method == "synflow":
        return synflow(net, image, dtype)
    scores = {"snip": snip, "grasp": grasp}[method](net, x.to(dtype), y)
    return scores, keep(scores, round((1 - SPARSITY) * sum(s.numel() for s in scores.values())))


def main(mnist_source, cifar_source, *networks):
    print("| network | method | equal masks | of PyTorch in f32 | rank correlation | of PyTorch in f32 |\n|" + " --- |" * 6)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for arch, (data, x, y) in {
            "lenet-5": mnist(mnist_source, folder),
            "resnet-20": cifar(cifar_source, folder),
            "vgg-16-bn-cifar": cifar(cifar_source, folder),
        }.items():
            if networks and arch not in networks:
                continue
            for method in ("snip", "grasp", "synflow"):
                compare(arch, method, data, ARCHITECTURES[arch][1], x, y, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
