"""ONNX Runtime for `resprout bench --against onnxruntime`.

baseline.py MODEL BATCH THREADS IMAGES OUTPUT

IMAGES are little-endian f32 of the model's input. The first output is written to OUTPUT, and the version is printed.
Then every line of standard input runs one batch; the line "load" loads the model once more. The seconds of each are printed.
"""

import sys
import time

import numpy as np
import onnxruntime

model, batch, threads, images, output = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
value = session.get_inputs()[0]
# Free dimensions other than the batch are in the file's order behind it.
shape = [int(batch)] + [int(dim) for dim in open(images + ".shape").read().split()]
kind = np.uint8 if value.type == "tensor(uint8)" else np.float32
feed = {value.name: np.fromfile(images, np.float32).reshape(shape).astype(kind)}
session.run(None, feed)[0].astype(np.float32).tofile(output)
print(onnxruntime.__version__, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    if line.strip() == "load":
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    else:
        session.run(None, feed)
    print(time.perf_counter() - start, flush=True)
