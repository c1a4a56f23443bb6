"""A criterion of one's own, beside magnitude, on the digit network of the repository.

    python examples/own_criterion.py
"""
import pathlib

import numpy as np

import resprout as rs

MODEL = pathlib.Path(__file__).parents[2] / "resprout-cli/assets/digits.onnx"


def relative_magnitude(name, weight):
    """The weight, relative to the largest one of its output channel."""
    flat = np.abs(weight).reshape(len(weight), -1)
    return (flat / flat.max(axis=1, keepdims=True)).reshape(weight.shape)


def main():
    own = rs.prune(MODEL, sparsity=0.9, allocation="global", score=relative_magnitude)
    magnitude = rs.prune(MODEL, sparsity=0.9, allocation="global", criterion="magnitude")
    for ours, theirs in zip(own.report["layers"], magnitude.report["layers"]):
        print(f"{ours['param']:32} {ours['kept']:6} {theirs['kept']:6} of {ours['weights']}")


if __name__ == "__main__":
    main()
