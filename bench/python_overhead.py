"""What a call of `resprout.Session` from Python costs beside the same session in Rust, in microseconds.

    PROFILE=release crates/resprout-python/check   # builds the wheel; install it with numpy
    python bench/python_overhead.py MODEL.onnx [ROUNDS]

In turns: 2000 calls with one image from Python, and the command's own measurement of the same plan on one thread. The overhead is
the difference of the medians.
"""
import json
import statistics
import subprocess
import sys
import time

import numpy as np

import resprout as rs


def main(path, rounds=9):
    session = rs.Session(path, threads=1)
    image = np.random.default_rng(0).uniform(-1, 1, (1, *session.image)).astype(np.float32)
    calls, runs = [], []
    for _ in range(int(rounds)):
        times = []
        for _ in range(2000):
            start = time.perf_counter()
            session(image)
            times.append(time.perf_counter() - start)
        calls.append(1e6 * statistics.median(times))
        command = [sys.executable, "-m", "resprout", "bench", path, "--threads", "1", "--rounds", "9", "--quiet", "--json", "-"]
        report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        runs.append(1e6 * report["rows"][0]["ours"]["p50"])
    python, rust = statistics.median(calls), statistics.median(runs)
    print(f"{path}: from Python {python:.1f}, in Rust {rust:.1f}, overhead {python - rust:.1f} microseconds per call")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
