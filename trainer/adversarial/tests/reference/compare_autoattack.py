"""Counts the images of a run's small CNN that are robust under the published AutoAttack, for docs/results.md. Not part of
the test run.

    pip install torch==2.11.0 numpy safetensors && pip install --no-deps pyautoattack==0.2.0
    python compare_autoattack.py WEIGHTS FASHION_MNIST_DIR EPSILON
"""

import gzip
import pathlib
import sys

import numpy as np
import torch
from pyautoattack import AutoAttack
from safetensors.torch import load_file

from small_cnn import SmallCnn

COUNT, BATCH = 1000, 250


weights, folder, epsilon = sys.argv[1], pathlib.Path(sys.argv[2]), float(sys.argv[3])
model = SmallCnn().eval()
model.load_state_dict(load_file(weights), strict=True)
torch.manual_seed(0)


def read(name, header):
    return np.frombuffer(gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes())[header:], np.uint8)


images = torch.tensor(read("images-idx3", 16)[: COUNT * 784]).reshape(-1, 1, 28, 28) / 255.0
labels = torch.tensor(read("labels-idx1", 8)[:COUNT]).long()
clean = model(images).argmax(1) == labels
print("clean", int(clean.sum()))
for names in [["apgd-ce"], ["apgd-t"], ["fab-t"], ["square"], ["apgd-ce", "apgd-t", "fab-t", "square"]]:
    torch.manual_seed(0)
    attack = AutoAttack(model, norm="Linf", eps=epsilon, seed=0)
    attack.verbose, attack.attacks_to_run = False, names
    adversarial = attack.run_standard_evaluation(images, labels, batch_size=BATCH)[0]
    with torch.no_grad():
        robust = (model(adversarial).argmax(1) == labels) & clean
    print("+".join(names), int(robust.sum()), float((adversarial - images).abs().max()), flush=True)
