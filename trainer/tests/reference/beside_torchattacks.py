"""Counts what another implementation of APGD leaves of a run's small CNN, for docs/results.md. Not part of the test run.

    pip install torch==2.11.0 numpy safetensors scipy requests tqdm && pip install --no-deps torchattacks==3.5.1
    python beside_torchattacks.py WEIGHTS FASHION_MNIST_DIR EPSILON
"""

import gzip
import pathlib
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchattacks
from safetensors.torch import load_file

COUNT, BATCH = 1000, 250


class SmallCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 4, stride=2, padding=1)
        self.fc1 = nn.Linear(32 * 49, 100)
        self.fc2 = nn.Linear(100, 10)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


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
for name, attack in [
    ("apgd-ce-100", torchattacks.APGD(model, eps=epsilon, steps=100, n_restarts=1)),
    ("apgd-t-100-9", torchattacks.APGDT(model, eps=epsilon, steps=100, n_restarts=1, n_classes=10)),
]:
    robust = clean.clone()
    for start in range(0, COUNT, BATCH):
        part = slice(start, start + BATCH)
        robust[part] &= model(attack(images[part], labels[part])).argmax(1) == labels[part]
    print(name, int(robust.sum()))
