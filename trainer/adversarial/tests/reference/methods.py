"""Writes methods.json in this folder: expected values of attacks, objectives and optimizers from PyTorch for ../methods.rs.

Run with  pip install torch==2.11.0 numpy && python methods.py
Independent implementations of the papers in float64, with PyTorch's losses and optimizers where it has them. The network
has three channels and BatchNorm. Weights, images and noise come from a hash that both sides compute. Not part of the test
run.
"""

import hashlib
import json
import math
import pathlib
import struct

import numpy as np
import torch
import torch.nn.functional as F

from hashed import fill, numbers
from wide_resnet import WideResNet

torch.set_default_dtype(torch.float64)
COUNT = 4
SHAPE = (COUNT, 3, 16, 16)


def network():
    return fill(WideResNet(10, 10, 1)).eval()


def rounded(tensor):
    return [float(f"{value:.12g}") for value in tensor.detach().flatten().tolist()]


def sample(tensor):
    """Sum, norm, and 8 values at indices that both sides compute."""
    flat = tensor.detach().flatten()
    indices = [(j * 2654435761) % flat.numel() for j in range(8)]
    return rounded(torch.stack([flat.sum(), flat.norm(), *flat[indices]]))


images = (numbers(1000, SHAPE) + 1) / 2
noise = numbers(1001, SHAPE)
labels = torch.tensor([0, 7, 4, 1])


def gradient(loss, x):
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(loss(x), x)[0]


def pgd_l2(model, epsilon, step_size, steps):
    def project(x):
        delta = (x - images).flatten(1).renorm(2, 0, epsilon).view_as(images)
        return (images + delta).clamp(0, 1)

    x = project(images + 0.05 * noise)
    for _ in range(steps):
        g = gradient(lambda x: F.cross_entropy(model(x), labels, reduction="sum"), x)
        x = project(x + step_size * F.normalize(g.flatten(1), dim=1).view_as(g))
    return x


def fgsm(model, epsilon, step_size):
    """From a random start, with the statistics of the batch (Wong et al., algorithm 3 and its code)."""
    x = (images + epsilon * noise).clamp(0, 1)
    g = gradient(lambda x: F.cross_entropy(model.train()(x), labels), x)
    x = x + step_size * g.sign()
    return torch.min(torch.max(x, images - epsilon), images + epsilon).clamp(0, 1)


def n_fgsm(model, epsilon, factor):
    """With the statistics of the batch (de Jorge et al., algorithm 1 and its code)."""
    x = (images + factor * epsilon * noise).clamp(0, 1)
    g = gradient(lambda x: F.cross_entropy(model.train()(x), labels), x)
    return (x + epsilon * g.sign()).clamp(0, 1)


def trades_attack(model, epsilon, step_size, steps):
    natural = F.softmax(model(images), dim=1).detach()
    x = images + 0.001 * noise
    x = torch.min(torch.max(x, images - epsilon), images + epsilon).clamp(0, 1)
    for _ in range(steps):
        g = gradient(lambda x: F.kl_div(F.log_softmax(model(x), dim=1), natural, reduction="sum"), x)
        x = x + step_size * g.sign()
        x = torch.min(torch.max(x, images - epsilon), images + epsilon).clamp(0, 1)
    return x


def smoothed_attack(model, epsilon, step_size, steps):
    """SmoothAdv-PGD (arXiv 1906.04584, section 3.2) with three noise samples, and the mean loss on its noisy copies."""
    sigma_noise = 0.25 * numbers(1002, (COUNT * 3, *SHAPE[1:])).reshape(COUNT, 3, *SHAPE[1:])

    def loss(x):
        probabilities = F.softmax(model((x.unsqueeze(1) + sigma_noise).flatten(0, 1)), dim=1).view(COUNT, 3, 10)
        return -probabilities.mean(dim=1)[torch.arange(COUNT), labels].log().sum()

    def project(x):
        return (images + (x - images).flatten(1).renorm(2, 0, epsilon).view_as(images)).clamp(0, 1)

    x = project(images + 0.01 * noise)
    for _ in range(steps):
        x = project(x + step_size * F.normalize(gradient(loss, x).flatten(1), dim=1).view_as(x))
    logits = model.train()((x.unsqueeze(1) + sigma_noise).flatten(0, 1))
    return x, float(F.cross_entropy(logits, labels.unsqueeze(1).expand(COUNT, 3).reshape(-1)).detach())


def trades(model, adversarial, beta):
    natural = model(images)
    robust = F.kl_div(F.log_softmax(model(adversarial), dim=1), F.softmax(natural, dim=1), reduction="batchmean")
    return F.cross_entropy(natural, labels) + beta * robust


def mart(model, adversarial, beta):
    natural, attacked = F.softmax(model(images), dim=1), F.softmax(model(adversarial), dim=1)
    chosen = F.one_hot(labels, 10).bool()
    wrong = attacked.masked_fill(chosen, -1.0).max(dim=1).values
    boosted = -torch.log(attacked[chosen]) - torch.log(1.0001 - wrong)
    divergence = (natural * (natural.log() - attacked.log())).sum(dim=1)
    return (boosted + beta * divergence * (1.0000001 - natural[chosen])).mean()


def weight_perturbation(model, adversarial, gamma):
    loss = F.cross_entropy(model.train()(adversarial), labels)
    weights = [p for p in model.parameters() if p.dim() > 1]
    with torch.no_grad():
        for weight, g in zip(weights, torch.autograd.grad(loss, weights)):
            weight += gamma * weight.norm() * g / g.norm()
    return model


def targeted_dlr(logits, target):
    ranked = logits.sort(dim=1, descending=True).values
    spread = ranked[:, 0] - 0.5 * (ranked[:, 2] + ranked[:, 3]) + 1e-12
    rows = torch.arange(COUNT)
    return -(logits[rows, labels] - logits[rows, target]) / spread


def apgd(model, loss, norm, epsilon, steps):
    """Algorithm 1 of arXiv 2003.01690, image by image."""
    found = []
    for index in range(COUNT):
        image = images[index]

        def look(x):
            x = x.detach().requires_grad_(True)
            batch = images.clone()
            batch[index] = x
            logits = model(batch)
            value = loss(logits)[index]
            wrong = logits[index].argmax() != labels[index]
            return value.item(), torch.autograd.grad(value, x)[0], bool(wrong)

        def project(x):
            if norm == 2:
                delta = x - image
                return (image + delta * min(1.0, epsilon / max(delta.norm().item(), 1e-12))).clamp(0, 1)
            return torch.min(torch.max(x, image - epsilon), image + epsilon).clamp(0, 1)

        def direction(g):
            return g / max(g.norm().item(), 1e-12) if norm == 2 else g.sign()

        start = noise[index]
        start = start / (start.norm() if norm == 2 else start.abs().max())
        x = project(image + epsilon * start)
        value, g, wrong = look(x)
        values, best, best_x, best_g = [value], value, x, g
        adversarial = x if wrong else None
        step, previous = 2 * epsilon, x
        interval, last, reduced, best_before = max(int(0.22 * steps), 1), 0, True, value
        for k in range(steps):
            z = project(x + step * direction(g))
            share = 1.0 if k == 0 else 0.75
            x, previous = project(x + share * (z - x) + (1 - share) * (x - previous)), x
            value, g, wrong = look(x)
            values.append(value)
            if wrong:
                adversarial = x
            if value > best:
                best, best_x, best_g = value, x, g
            if k + 1 - last == interval:
                window = values[last:k + 2]
                rises = sum(after > before for before, after in zip(window, window[1:]))
                reduced = rises <= 0.75 * interval or (not reduced and best_before >= best)
                best_before = best
                if reduced:
                    step, x, g = step / 2, best_x, best_g
                last = k + 1
                interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        found.append(adversarial if adversarial is not None else best_x)
    return torch.stack(found)


def cw(model, epsilon, step_size, steps):
    x = images + epsilon * noise
    x = torch.min(torch.max(x, images - epsilon), images + epsilon).clamp(0, 1)
    chosen = F.one_hot(labels, 10).bool()
    for _ in range(steps):
        def loss(x):
            logits = model(x)
            return (logits.masked_fill(chosen, -torch.inf).max(dim=1).values - logits[chosen]).sum()
        x = x + step_size * gradient(loss, x).sign()
        x = torch.min(torch.max(x, images - epsilon), images + epsilon).clamp(0, 1)
    return x


def ranking(model):
    """The classes of each image, the most likely first. The first is used as its label."""
    return model(images).argsort(dim=1, descending=True)


def to_plane(norm, point, normal, lacks):
    """The shortest movement within [0, 1] that raises normal · point by lacks, by bisection of its size."""
    direction = (normal * np.sign(lacks)).sign()
    room = torch.where(direction > 0, 1 - point, point)
    speed = normal.abs() if norm == 2 else torch.ones_like(normal)

    def movement(size):
        return torch.minimum(size * speed, room) * direction

    low, high = 0.0, 1.0
    while (movement(high) * normal).sum().abs() < abs(lacks) and high < 1e12:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (movement(middle) * normal).sum().abs() < abs(lacks) else (low, middle)
    return movement(high)


def fab_t(model, norm, epsilon, steps):
    """FAB towards a class, image by image (arXiv 1907.02044, with the form and constants of AutoAttack)."""
    found = []
    for index in range(COUNT):
        image, (label, target) = images[index], ranking(model)[index][:2].tolist()

        def length(delta):
            return float(delta.norm() if norm == 2 else delta.abs().max())

        def logits(x):
            return model(x.unsqueeze(0))[0]

        x, nearest, shortest = image, image, np.inf
        for _ in range(steps):
            point = x.detach().requires_grad_(True)
            z = logits(point)
            difference = z[target] - z[label]
            w = torch.autograd.grad(difference, point)[0]
            f = float(difference.detach())
            here = to_plane(norm, x, w, -f)
            there = to_plane(norm, image, w, -f + float((w * (x - image)).sum()))
            a, b = max(length(here), 1e-8), max(length(there), 1e-8)
            alpha = min(a / (a + b), 0.1)
            x = ((1 - alpha) * (x + 1.05 * here) + alpha * (image + 1.05 * there)).clamp(0, 1)
            if int(logits(x).argmax()) != label:
                far = length(x - image)
                if far < shortest:
                    nearest, shortest = x, far
                x = image + 0.9 * (x - image)
        found.append(nearest.detach() if shortest <= epsilon else image)
    return torch.stack(found)


class Draws:
    """ChaCha with 8 rounds, keyed by a SHA-256, as ../../src/random.rs says."""

    def __init__(self, seed, purpose, *indices):
        data = b"datjob/1\0" + purpose.encode() + b"\0" + struct.pack(f"<{1 + len(indices)}Q", seed, *indices)
        self.key, self.block, self.words = struct.unpack("<8I", hashlib.sha256(data).digest()), 0, []

    def word(self):
        if not self.words:
            start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *self.key, self.block, 0, 0, 0]
            x = start[:]

            def quarter(a, b, c, d):
                for (p, q, r, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                    x[p] = (x[p] + x[q]) & 0xFFFFFFFF
                    x[r] ^= x[p]
                    x[r] = (x[r] << turn | x[r] >> (32 - turn)) & 0xFFFFFFFF

            for _ in range(4):
                for i in range(4):
                    quarter(i, 4 + i, 8 + i, 12 + i)
                for i in range(4):
                    quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
            self.words = [(a + b) & 0xFFFFFFFF for a, b in zip(x, start)]
            self.block += 1
        return self.words.pop(0)

    def sign(self):
        return 1.0 if self.word() >> 31 else -1.0

    def below(self, bound):
        while True:
            product = self.word() * bound
            if product & 0xFFFFFFFF >= 2**32 % bound:
                return product >> 32


def share(query):
    return 0.8 / 2 ** sum(query > after for after in [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])


def bump(side, draws):
    """η of Square in ℓ2 (arXiv 1912.00049, section 4.2)."""

    def pyramid(height, width):
        values = np.zeros((height, width))
        for layer in range(max(height, width) // 2 + 1):
            rows = slice(max(height // 2 - layer, 0), height // 2 + layer + 1)
            values[rows, max(width // 2 - layer, 0):width // 2 + layer + 1] += 1 / (layer + 1) ** 2
        return values / max(np.linalg.norm(values), 1e-12)

    values = np.concatenate([pyramid(side // 2, side), -pyramid(side - side // 2, side)])
    values /= np.linalg.norm(values)
    return values.T if draws.word() >> 31 else values


def square(model, norm, epsilon, queries):
    """Square, image by image (arXiv 1912.00049, algorithms 1 to 4), until the image is fooled."""
    found = []
    for index in range(COUNT):
        image, label, draws = images[index].numpy(), int(ranking(model)[index][0]), Draws(7, "square/square", index, 0)
        channels, height, width = image.shape

        def margin(x):
            z = model(torch.from_numpy(x).unsqueeze(0))[0].detach()
            return float(z[label] - max(z[k] for k in range(10) if k != label))

        def stretched(delta):
            x = np.clip(image + delta * epsilon / (np.linalg.norm(delta) + 1e-12), 0, 1)
            # Pixels that are clipped only shorten it: the projection of the attack changes nothing.
            return x

        if norm == 2:
            tile = height // 5
            delta, begin = np.zeros_like(image), (height - tile * (height // tile)) // 2
            for row in range(begin, begin + tile * (height // tile), tile):
                for column in range(begin, begin + tile * (width // tile), tile):
                    values = bump(tile, draws)
                    for channel in range(channels):
                        delta[channel, row:row + tile, column:column + tile] += values * draws.sign()
            best = stretched(delta)
        else:
            stripes = np.array([draws.sign() for _ in range(channels * width)]).reshape(channels, 1, width)
            best = np.clip(image + epsilon * stripes, 0, 1)
        lowest = margin(best)
        for query in range(queries):
            if lowest < 0:
                break
            side = max(int(round(math.sqrt(share(query) * height * width))), 1)
            if norm == 2:
                side = max(side, 3)
                side += 1 - side % 2
                side = min(side, height)
                delta = best - image

                def place():
                    row = draws.below(height - side + 1)
                    return slice(row, row + side), (lambda c: slice(c, c + side))(draws.below(width - side + 1))

                to, out = place(), place()
                values = bump(side, draws)
                unused = max(epsilon**2 - (delta**2).sum(), 0) / channels
                for channel in range(channels):
                    part = delta[channel]
                    mask = np.zeros_like(part)
                    mask[to], mask[out] = 1, 1
                    available = math.sqrt(unused + ((part * mask) ** 2).sum())
                    new = values * draws.sign() + part[to] / (np.linalg.norm(part[to]) + 1e-12)
                    part[out] = 0
                    part[to] = new / (np.linalg.norm(new) + 1e-12) * available
                candidate = stretched(delta)
            else:
                row, column = draws.below(height - side + 1), draws.below(width - side + 1)
                candidate = best.copy()
                for channel in range(channels):
                    window = (channel, slice(row, row + side), slice(column, column + side))
                    moved = candidate[window] + 2 * epsilon * draws.sign()
                    candidate[window] = np.clip(np.clip(moved, image[window] - epsilon, image[window] + epsilon), 0, 1)
            value = margin(candidate)
            if value < lowest:
                best, lowest = candidate, value
        found.append(torch.from_numpy(best))
    return torch.stack(found)


def gradients(loss_of):
    """The loss in training mode, its gradients, and the running statistics afterwards."""
    model = network().train()
    loss = loss_of(model)
    loss.backward()
    return {
        "loss": float(loss.detach()),
        "gradients": {name: sample(p.grad) for name, p in model.named_parameters()},
        "statistics": {name: sample(b.double()) for name, b in model.named_buffers()},
    }


def steps(make):
    """Three steps on the cross-entropy of the images."""
    model = network().train()
    optimizer = make(model)
    for learning_rate in [0.01, 0.02, 0.005]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return {name: sample(p) for name, p in model.named_parameters()}


adversarial = trades_attack(network(), 0.1, 0.04, 4)
smoothed = smoothed_attack(network(), 0.8, 0.2, 4)
result = {
    "torch": torch.__version__,
    "pgd_l2": rounded(pgd_l2(network(), 0.8, 0.3, 5)),
    "fgsm": rounded(fgsm(network(), 0.1, 0.125)),
    "n_fgsm": rounded(n_fgsm(network(), 0.1, 2.0)),
    "trades_attack": rounded(adversarial),
    "apgd_ce": rounded(apgd(network(), lambda z: F.cross_entropy(z, labels, reduction="none"), np.inf, 0.02, 40)),
    "apgd_ce_l2": rounded(apgd(network(), lambda z: F.cross_entropy(z, labels, reduction="none"), 2, 0.2, 40)),
    "apgd_dlr": rounded(apgd(network(), lambda z: targeted_dlr(z, torch.tensor([3, 2, 9, 5])), np.inf, 0.02, 40)),
    "cw": rounded(cw(network(), 0.02, 0.005, 10)),
    "fab_t": rounded(fab_t(network(), np.inf, 0.05, 20)),
    "fab_t_l2": rounded(fab_t(network(), 2, 1.0, 20)),
    "square": rounded(square(network(), np.inf, 0.02, 60)),
    "square_l2": rounded(square(network(), 2, 0.4, 60)),
    "smoothed_attack": rounded(smoothed[0]),
    "smoothed_loss": smoothed[1],
    "label_smoothing": gradients(lambda model: F.cross_entropy(model(adversarial), labels, label_smoothing=0.1)),
    "trades": gradients(lambda model: trades(model, adversarial, 6.0)),
    "mart": gradients(lambda model: mart(model, adversarial, 5.0)),
    "weight_perturbation": {
        name: sample(p) for name, p in weight_perturbation(network(), adversarial, 0.01).named_parameters()
    },
    "adamw": steps(lambda model: torch.optim.AdamW(model.parameters(), 1.0, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.05)),
}
path = pathlib.Path(__file__).with_name("methods.json")
path.write_text(json.dumps(result, separators=(",", ":")) + "\n")
print(path, path.stat().st_size)
