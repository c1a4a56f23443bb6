"""A torchvision network to a sparse session, and its weights back into the module.

    python examples/torchvision_resnet18.py IMAGES

IMAGES is a folder of pictures. The weights are random here; give a trained module instead.
"""
import sys

import numpy as np
import torch
import torchvision

import resprout as rs


def main(folder):
    module = torchvision.models.resnet18(weights=None).eval()
    result = rs.prune(module, sparsity=0.9, allocation="erk", repair="bn", calibration=folder, calibration_images=64)
    print(result)
    images = np.random.default_rng(0).standard_normal((4, 3, 224, 224), dtype=np.float32)
    scores = rs.Session(result, image=images.shape[1:], threads=2)(images)
    rs.apply(module, result)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    print("largest difference to the module:", np.abs(scores - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main(sys.argv[1])
