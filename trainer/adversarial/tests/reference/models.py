"""Writes models.json in this folder: expected values from the classes of RobustBench and torchvision for ../architectures.rs.

Run with  pip install torch==2.11.0 torchvision==0.26.0 numpy && pip install --no-deps robustbench==1.1.1 && python models.py
Weights and images come from a hash that both sides compute, in float64. Not part of the test run.
"""

import importlib
import json
import pathlib
import sys
import types

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

from hashed import fill, numbers

# Its package imports other packages for data sets and attacks; the architectures do not need them.
site = next(p for p in map(pathlib.Path, sys.path) if (p / "robustbench").is_dir())
for name in ["robustbench", "robustbench.model_zoo", "robustbench.model_zoo.architectures"]:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(site.joinpath(*name.split(".")))]
resnet = importlib.import_module("robustbench.model_zoo.architectures.resnet")
wide = importlib.import_module("robustbench.model_zoo.architectures.wide_resnet")

torch.set_default_dtype(torch.float64)


def with_silu(model):
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU(inplace=child.inplace))
    return model


def rounded(tensor):
    return [float(f"{value:.12g}") for value in tensor.detach().flatten().tolist()]


def sample(tensor):
    """Sum, norm, and 3 values at indices that both sides compute."""
    flat = tensor.detach().double().flatten()
    indices = [(j * 2654435761) % flat.numel() for j in range(3)]
    return rounded(torch.stack([flat.sum(), flat.norm(), *flat[indices]]))


def reference(name, spec, model, size, classes):
    images = (numbers(1000, (3, 3, size, size)) + 1) / 2
    labels = torch.tensor([1, 5, 2])
    fill(model)
    result = {"name": name, "model": spec, "size": size, "classes": classes}
    result["state"] = [[key, list(tensor.shape)] for key, tensor in model.state_dict().items()]
    model.eval()
    result["logits_eval"] = rounded(model(images))
    model.train()
    logits = model(images)
    result["logits_train"] = rounded(logits)
    F.cross_entropy(logits, labels).backward()
    # Every fifth parameter keeps the file small; each kind of layer is among them.
    result["gradients"] = {key: sample(p.grad) for key, p in list(model.named_parameters())[::5]}
    return result


cases = [
    reference("ResNet34", {"architecture": "resnet34"}, resnet.ResNet34(), 32, 10),
    reference("ResNet50", {"architecture": "resnet50"}, resnet.ResNet50(), 32, 10),
    reference(
        "PreActResNet18 with BatchNorm before the linear layer",
        {"architecture": "preact-resnet18"},
        resnet.PreActResNet(resnet.PreActBlockV2, [2, 2, 2, 2], 10, bn_before_fc=True),
        32,
        10,
    ),
    reference("WideResNet-16-2", {"architecture": "wide-resnet-16-2"}, wide.WideResNet(16, 10, 2), 32, 10),
    reference(
        "WideResNet-10-3 with SiLU",
        {"architecture": "wide-resnet-10-3", "activation": "SiLU"},
        with_silu(wide.WideResNet(10, 100, 3)),
        32,
        100,
    ),
    reference(
        "torchvision's resnet18",
        {"architecture": "resnet18", "stem": "ImageNet"},
        torchvision.models.resnet18(num_classes=7),
        64,
        7,
    ),
    reference(
        "torchvision's resnet50",
        {"architecture": "resnet50", "stem": "ImageNet"},
        torchvision.models.resnet50(num_classes=7),
        64,
        7,
    ),
]
path = pathlib.Path(__file__).with_name("models.json")
path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}, separators=(",", ":")) + "\n")
print(path, path.stat().st_size)
