"""Writes small-cnn.json and resnet18.json in this folder: expected values from PyTorch for ../reference.rs.

Run with  pip install torch==2.11.0 numpy && python make.py
The networks, attacks and the loss are independent implementations of their papers, in float64. Weights, images, labels
and noise come from a hash that both sides compute, so the files hold only results. Not part of the test run.
"""

import json
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F

from hashed import fill, numbers
from small_cnn import SmallCnn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)  # Nothing below uses this generator.

IMAGES, NOISE = 1000, 1001


class Block(nn.Module):
    def __init__(self, from_, to, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(from_, to, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(to)
        self.conv2 = nn.Conv2d(to, to, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(to)
        self.shortcut = nn.Sequential()
        if stride != 1 or from_ != to:
            self.shortcut = nn.Sequential(nn.Conv2d(from_, to, 1, stride=stride, bias=False), nn.BatchNorm2d(to))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.linear = nn.Linear(512, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))


def input_gradient(model, x, labels):
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(F.cross_entropy(model(x), labels), x)[0]


def pgd(model, images, labels, noise, epsilon, step_size, steps):
    model.eval()
    x = torch.clamp(images + noise, 0, 1)
    for _ in range(steps):
        x = x + step_size * input_gradient(model, x, labels).sign()
        x = torch.clamp(images + torch.clamp(x - images, -epsilon, epsilon), 0, 1).detach()
    return x


def fgsm(model, images, labels, noise, epsilon, step_size):
    """In training mode, as Wong et al.; a copy of the model takes the update of the running statistics."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    delta = torch.clamp(images + noise, 0, 1) - images
    delta = delta + step_size * input_gradient(model, images + delta, labels).sign()
    delta = torch.clamp(delta, -epsilon, epsilon)
    model.load_state_dict(before)
    return torch.clamp(images + delta, 0, 1)


def objective(model, images, adversarial, labels, clean_weight, scale):
    model.train()
    loss = F.cross_entropy(model(adversarial), labels, reduction="sum")
    return scale * (loss + clean_weight * F.cross_entropy(model(images), labels, reduction="sum"))


def rounded(tensor):
    return [float(f"{value:.12g}") for value in tensor.detach().flatten().tolist()]


def sample(tensor):
    """Sum, norm, and 8 values at indices that both sides compute."""
    flat = tensor.detach().double().flatten()
    indices = [(j * 2654435761) % flat.numel() for j in range(8)]
    return rounded(torch.stack([flat.sum(), flat.norm(), *flat[indices]]))


def make(name, new, shape, count, classes, epsilon, pgd_steps):
    images = (numbers(IMAGES, (count, *shape)) + 1) / 2
    labels = torch.tensor([i * 7 % classes for i in range(count)])
    noise = epsilon * numbers(NOISE, (count, *shape))
    model = fill(new())
    result = {"torch": torch.__version__, "classes": classes, "epsilon": epsilon, "pgd_steps": pgd_steps}
    result["state"] = [[key, list(tensor.shape)] for key, tensor in model.state_dict().items()]
    result["parameters"] = [key for key, _ in model.named_parameters()]
    model.eval()
    result["logits_eval"] = rounded(model(images))
    model.train()
    result["logits_train"] = rounded(model(images))
    fill(model)
    adversarial = pgd(model, images, labels, noise, epsilon, 2.5 * epsilon / pgd_steps, pgd_steps)
    result["pgd"] = rounded(adversarial)
    result["fgsm"] = rounded(fgsm(model, images, labels, noise, epsilon, 1.25 * epsilon))
    loss = objective(model, images, adversarial, labels, 0.5, 2.0 / count)
    loss.backward()
    result["loss"] = float(loss.detach())
    result["gradients"] = {key: sample(tensor.grad) for key, tensor in model.named_parameters()}
    result["statistics"] = {key: sample(tensor) for key, tensor in model.named_buffers()}
    for nesterov in [True, False]:
        fill(model)
        optimizer = torch.optim.SGD(model.parameters(), 1.0, momentum=0.9, weight_decay=5e-4, nesterov=nesterov)
        for learning_rate in [0.01, 0.02, 0.005]:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.zero_grad()
            objective(model, images, adversarial, labels, 0.0, 1.0 / count).backward()
            optimizer.step()
        key = "sgd_nesterov" if nesterov else "sgd"
        result[key] = {key: sample(tensor) for key, tensor in model.named_parameters()}
    path = pathlib.Path(__file__).with_name(f"{name}.json")
    path.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size)


make("small-cnn", lambda: SmallCnn(), (1, 28, 28), 4, 10, 0.1, 5)
make("resnet18", lambda: ResNet18(3, 10), (3, 16, 16), 4, 10, 8 / 255, 3)
