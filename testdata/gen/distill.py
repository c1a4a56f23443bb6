"""The loss and the gradients of distilling a masked ResNet-20 from a dense one, and five steps of Adam, by PyTorch.

    pip install -r testdata/gen/requirements.txt
    python testdata/gen/distill.py testdata/golden/distill.safetensors

The dense network has the weights of `fill`. The other one has their larger half, and 0.9 of the classifier's bias. BatchNormalization
uses its running statistics. Everything is computed in f64; each gradient is kept as its first numbers and the sum of squares.
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
from architectures import Block, ThinResNet, fill, noise
from safetensors.numpy import save_file

TEMPERATURE, RATE = 2.0, 3e-3


def masked(name, tensor):
    """The larger half of a convolution's weights."""
    if tensor.dim() != 4:
        return 0.9 * tensor if name == "fc.bias" or name == "linear.bias" else tensor
    middle = tensor.abs().flatten().kthvalue(tensor.numel() // 2).values
    return tensor * (tensor.abs() > middle)


def blocks_of(net):
    """A list that every forward pass fills with the block outputs."""
    found = []
    for module in net.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    return found


def loss_of(student, teacher, own, other, x):
    own.clear(), other.clear()
    with torch.no_grad():
        target = teacher(x)
    logits = student(x)
    divergence = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), F.softmax(target / TEMPERATURE, 1), reduction="batchmean")
    errors = [((a - b) ** 2).mean() / b.var(correction=0) for a, b in zip(own, other)]
    return divergence * TEMPERATURE**2 + sum(errors) / len(errors)


def summary(tensor):
    flat = tensor.detach().flatten()
    return np.concatenate([flat[:32].numpy(), [float((flat * flat).sum())]])


def adam():
    """64 numbers after five steps, with gradients of noise whose size falls from number to number."""
    value = torch.from_numpy(noise("value", 64)).requires_grad_()
    optimiser = torch.optim.Adam([value], RATE, betas=(0.9, 0.99))
    for step in range(5):
        value.grad = torch.from_numpy(noise(f"gradient.{step}", 64) * 10.0 ** -np.arange(0, 6.4, 0.1))
        optimiser.step()
    return value.detach().numpy()


def main(path):
    teacher, student = (fill(ThinResNet(3)).double().eval() for _ in range(2))
    with torch.no_grad():
        for name, tensor in student.named_parameters():
            tensor.copy_(masked(name, tensor))
    masks = {name: (tensor != 0) | (tensor.dim() != 4) for name, tensor in student.named_parameters()}
    images = np.floor((noise("images", 20 * 3 * 32 * 32) / np.sqrt(3) + 1) * 127.99).astype(np.float64)
    x = torch.from_numpy((images / 255 - 0.5) / 0.25).reshape(20, 3, 32, 32)
    own, other = blocks_of(student), blocks_of(teacher)
    loss = loss_of(student, teacher, own, other, x)
    loss.backward()
    golden = {f"grad.{name}": summary(tensor.grad * masks[name]) for name, tensor in student.named_parameters()}
    save_file({**golden, "loss": np.array([float(loss.detach())]), "adam": adam()}, path)
    print(float(loss.detach()))


if __name__ == "__main__":
    main(sys.argv[1])
