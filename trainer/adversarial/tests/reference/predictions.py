"""Compares the classes that `dat-trainer evaluate --predictions FILE` wrote for a small CNN with PyTorch's, image by image.
Not part of the test run.

    pip install torch==2.11.0 numpy safetensors
    python predictions.py WEIGHTS FASHION_MNIST_DIR FILE
"""

import gzip
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file

from small_cnn import SmallCnn


weights, folder, predictions = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
model = SmallCnn().eval()
model.load_state_dict(load_file(weights), strict=True)
pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
images = torch.tensor(pixels).reshape(-1, 1, 28, 28) / 255.0
with torch.no_grad():
    classes = model(images).argmax(1)
ours = torch.tensor([int(line) for line in open(predictions)])
print(f"{int((classes == ours).sum())} of {len(classes)} predictions match; the file has {len(ours)}")
