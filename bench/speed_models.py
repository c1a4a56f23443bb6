"""Makes ResNet-50 (224x224) and ResNet-18 for CIFAR (3x3 stem, 32x32), dense and with random masks, to be timed.

    pip install -r testdata/gen/requirements.txt
    python bench/speed_models.py FOLDER
    resprout bench FOLDER/resnet50-uniform90.onnx --against onnxruntime --baseline-model FOLDER/resnet50-dense.onnx

The dense ones are written with int8 weights and activations too (static, per channel, calibrated on noise): another baseline.
"""
import pathlib
import sys

import numpy as np


def masks(layers, sparsity, kind):
    """Density of each weight: the same for all, or as ERK."""
    if kind == "uniform":
        return {name: 1 - sparsity for name in layers}
    raw = {name: sum(shape) / np.prod(shape) for name, shape in layers.items()}
    keep = (1 - sparsity) * sum(np.prod(shape) for shape in layers.values())
    full = set()
    while True:
        open_ = [name for name in layers if name not in full]
        factor = (keep - sum(np.prod(layers[n]) for n in full)) / sum(raw[n] * np.prod(layers[n]) for n in open_)
        over = [name for name in open_ if factor * raw[name] > 1]
        if not over:
            return {name: 1.0 if name in full else factor * raw[name] for name in layers}
        full |= set(over)


def models(folder):
    import torch
    import torchvision

    folder.mkdir(parents=True, exist_ok=True)
    for name, size in [("resnet50", 224), ("resnet18cifar", 32)]:
        for kind in ["dense", "uniform90", "uniform95", "erk90", "erk95"]:
            torch.manual_seed(0)
            model = torchvision.models.resnet50() if name == "resnet50" else torchvision.models.resnet18(num_classes=10)
            if name == "resnet18cifar":
                model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
                model.maxpool = torch.nn.Identity()
            weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
            if kind != "dense":
                density = masks({n: tuple(p.shape) for n, p in weights.items()}, int(kind[-2:]) / 100, kind[:-2])
                with torch.no_grad():
                    for n, p in weights.items():
                        kept = round(density[n] * p.numel())
                        mask = torch.zeros(p.numel())
                        mask[torch.randperm(p.numel())[:kept]] = 1
                        # The outputs keep their size, so that differences mean something.
                        p.mul_(mask.view_as(p) / density[n] ** 0.5)
            path = folder / f"{name}-{kind}.onnx"
            torch.onnx.export(
                model.eval(), torch.zeros(1, 3, size, size), path, dynamo=False, input_names=["x"], output_names=["y"],
                dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
            )
            print(path)


def int8(folder):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Noise(CalibrationDataReader):
        def __init__(self, size):
            random = np.random.default_rng(0)
            self.batches = iter([{"x": random.standard_normal((4, 3, size, size), np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self.batches, None)

    for name, size in [("resnet50", 224), ("resnet18cifar", 32)]:
        path, prepared = folder / f"{name}-int8.onnx", folder / "prepared.onnx"
        # Without known shapes the quantised graph is not fused, and slower than the one of floats.
        quant_pre_process(folder / f"{name}-dense.onnx", prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, path, Noise(size), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )
        prepared.unlink()
        print(path)


def main():
    folder = pathlib.Path(sys.argv[1])
    models(folder)
    int8(folder)


if __name__ == "__main__":
    main()
