"""Our forward against ONNX Runtime: alternating, same images, same threads, medians.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout --example timed_forward
    python bench/forward.py MODEL.onnx BATCH C,H,W [ROUNDS]

Prints the median milliseconds of both and the median of the per-round ratios (ONNX Runtime's time
by ours: above 1 we are faster).
"""
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime

THREADS = 2
# Seconds before each of our runs: ONNX Runtime's threads wait by spinning, which would cost us cores.
PAUSE = 0.05
EXAMPLE = pathlib.Path(__file__).parent.parent / "target/release/examples/timed_forward"


def main(model, batch, shape, rounds=21):
    dims = [int(dim) for dim in shape.split(",")]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = {session.get_inputs()[0].name: np.random.default_rng(0).uniform(-2, 2, [int(batch), *dims]).astype(np.float32)}
    ours = subprocess.Popen([EXAMPLE, model, batch, *map(str, dims), str(THREADS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def time_ours():
        time.sleep(PAUSE)
        ours.stdin.write("go\n")
        ours.stdin.flush()
        return float(ours.stdout.readline())

    def time_theirs():
        start = time.perf_counter()
        session.run(None, images)
        return time.perf_counter() - start

    for _ in range(3):
        time_ours(), time_theirs()
    pairs = [(time_ours(), time_theirs()) for _ in range(int(rounds))]
    ours.stdin.close()
    print(json.dumps({
        "model": pathlib.Path(model).name,
        "batch": int(batch),
        "threads": THREADS,
        "onnxruntime": onnxruntime.__version__,
        "ours_ms": round(statistics.median(a for a, _ in pairs) * 1e3, 2),
        "onnxruntime_ms": round(statistics.median(b for _, b in pairs) * 1e3, 2),
        "ratio": round(statistics.median(b / a for a, b in pairs), 3),
    }))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
