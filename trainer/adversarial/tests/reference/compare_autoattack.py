"""Counts the images of a run's small CNN that are robust under AutoAttack by its authors, for docs/results.md. Not part of
the test run. The folder holds the files of Fashion-MNIST, or the binary version of CIFAR-10.

    pip install torch==2.11.0 numpy safetensors && pip install git+https://github.com/fra31/auto-attack
    python compare_autoattack.py WEIGHTS FOLDER Linf|L2 EPSILON COUNT [cpu|cuda]
"""

import gzip
import pathlib
import sys

import numpy as np
import torch
from autoattack import AutoAttack
from safetensors.torch import load_file

from small_cnn import SmallCnn

BATCH = 250

weights, folder, norm, epsilon, count = sys.argv[1:6]
device = sys.argv[6] if len(sys.argv) > 6 else "cpu"
torch.backends.cudnn.allow_tf32 = False  # The trainer evaluates in float32, too.
folder, epsilon, count = pathlib.Path(folder), float(epsilon), int(count)


def fashion_mnist():
    def read(name, header):
        return np.frombuffer(gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes())[header:], np.uint8)

    return read("images-idx3", 16).reshape(-1, 1, 28, 28), read("labels-idx1", 8)


def cifar10():
    records = np.frombuffer((folder / "test_batch.bin").read_bytes(), np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


images, labels = cifar10() if (folder / "test_batch.bin").exists() else fashion_mnist()
images = torch.tensor(images[:count], device=device) / 255.0
labels = torch.tensor(labels[:count].astype(np.int64), device=device)
model = SmallCnn(*images.shape[1:3]).eval()
model.load_state_dict(load_file(weights), strict=True)
model.to(device)
clean = model(images).argmax(1) == labels
print("clean", int(clean.sum()), flush=True)
for names in [["apgd-ce"], ["apgd-t"], ["fab-t"], ["square"], ["apgd-ce", "apgd-t", "fab-t", "square"]]:
    torch.manual_seed(0)
    attack = AutoAttack(model, norm=norm, eps=epsilon, seed=0, device=device, verbose=False)
    attack.attacks_to_run = names
    adversarial = attack.run_standard_evaluation(images, labels, bs=BATCH)
    with torch.no_grad():
        robust = (model(adversarial).argmax(1) == labels) & clean
    change = (adversarial - images).flatten(1)
    size = change.abs().max() if norm == "Linf" else change.norm(dim=1).max()
    print("+".join(names), int(robust.sum()), float(size), flush=True)
