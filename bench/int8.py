"""Whether ONNX Runtime's int8 agrees with float, with BatchNormalization as nodes and fused.

    cargo build --release -p resprout-cli
    python bench/int8.py MODEL.onnx CIFAR_FOLDER [SPARSITY]

The network is pruned and recalibrated with `--repair bn`, written as it is and with `--fold-bn`, and quantised by ONNX Runtime's
`quantize_static` (QDQ, 256 calibration images). Agreement is the share of the first 2000 test images that get the class of the
float network. `BINARY` names another build.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

BINARY = os.environ.get("BINARY", str(pathlib.Path(__file__).parent.parent / "target/release/resprout"))
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
onnxruntime.set_default_logger_severity(4)


def images(path, count):
    raw = np.fromfile(path, np.uint8).reshape(-1, 3073)[:count, 1:].reshape(-1, 3, 32, 32)
    return ((raw / np.float32(255) - MEAN[:, None, None]) / STD[:, None, None]).astype(np.float32)


class Reader(CalibrationDataReader):
    def __init__(self, name, data):
        self.parts = iter([{name: data[at : at + 32]} for at in range(0, len(data), 32)])

    def get_next(self):
        return next(self.parts, None)


def classes(model, data):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: data[at : at + 50]})[0].argmax(1) for at in range(0, len(data), 50)]
    return np.concatenate(parts), name


def main():
    model, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    sparsity = sys.argv[3] if len(sys.argv) > 3 else "0.8"
    calibration, test = images(folder / "data_batch_1.bin", 256), images(folder / "test_batch.bin", 2000)
    print("| written | quantised | agreement, weights per tensor | per channel |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as work:
        for name, option in (("as nodes", []), ("--fold-bn", ["--fold-bn"])):
            sparse, ready, small = (f"{work}/{part}.onnx" for part in ("sparse", "ready", "int8"))
            command = [BINARY, "prune", model, "-s", sparsity, "--repair", "bn", "--calibration", folder, "--calibration-images", "1024",
                       "--preset", "imagenet", "--resize", "0", "--crop", "0", "--no-evaluation", "-o", sparse, "--quiet", *option]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            truth, input_name = classes(sparse, test)
            for step, source in (("as it is", sparse), ("quant_pre_process", ready)):
                if source == ready:
                    quant_pre_process(sparse, ready)
                agreed = []
                for per_channel in (False, True):
                    reader = Reader(input_name, calibration)
                    quantize_static(source, small, reader, quant_format=QuantFormat.QDQ, per_channel=per_channel)
                    agreed.append(f"{100 * (classes(small, test)[0] == truth).mean():.1f} %")
                print(f"| {name} | {step} | {' | '.join(agreed)} |", flush=True)


if __name__ == "__main__":
    main()
