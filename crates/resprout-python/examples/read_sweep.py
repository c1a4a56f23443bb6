"""A sweep of the digit network, read with pandas: the best repair at each sparsity.

    python examples/read_sweep.py [FOLDER]
"""
import sys

import resprout as rs

RECIPE = {
    "models": [{"path": "digits"}],
    "sparsities": [0.5, 0.8, 0.9],
    "allocations": ["erk", "lamp"],
    "repairs": ["none", "bn", "asr,bn"],
    "calibration_images": [64],
    "controls": False,
    "diagnostic_images": 0,
}


def main(folder=None):
    table = rs.sweep(RECIPE, folder).to_pandas()
    best = table.loc[table.groupby("sparsity")["value"].idxmax()]
    print(best[["sparsity", "allocation", "repair", "value"]].to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:2])
