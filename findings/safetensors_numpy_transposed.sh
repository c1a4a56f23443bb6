#!/usr/bin/env bash
# safetensors 0.8.0 with numpy 2.4.6, seen 2026-12-01.
# Expected: safetensors.numpy.save_file writes a kernel that was transposed from Keras' layout to ONNX's as it is, or refuses it. Its
# documentation asks for contiguous, dense tensors; safetensors.torch, whose documentation asks for the same, raises an error for others.
# Seen: the file has the new shape, and the numbers in the order of the old layout. There is no error and no warning, so that the kernel
# read back is another one. A copy by numpy.ascontiguousarray is written correctly. safetensors 0.7.0 wrote both correctly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.7.0 0.8.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q safetensors==$version numpy==2.4.6
done
cat >"$folder/script.py" <<'PY'
import sys
import numpy
from safetensors.numpy import load_file, save_file
folder, version = sys.argv[1:]
keras = numpy.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(numpy.float32)
kernel = keras.transpose(3, 2, 0, 1)
def round_trip(array):
    save_file({"kernel": array}, f"{folder}/kernel.safetensors")
    return load_file(f"{folder}/kernel.safetensors")["kernel"]
seen, copied = round_trip(kernel), round_trip(numpy.ascontiguousarray(kernel))
old_order = numpy.array_equal(seen.ravel(), keras.ravel())
print(f"safetensors {version}, kernel of shape {seen.shape}: expected the numbers that were saved, or an error")
print(f"seen: {(seen == kernel).mean():.1%} of the numbers in their places, in the old order: {old_order}; "
      f"after ascontiguousarray: {(copied == kernel).mean():.1%}")
assert seen.shape == kernel.shape and numpy.array_equal(copied, kernel), "this has changed"
assert numpy.array_equal(seen, kernel) if version == "0.7.0" else old_order, "this has changed"
PY
for version in 0.7.0 0.8.0; do
    "$folder/$version/bin/python" "$folder/script.py" "$folder" "$version"
done
