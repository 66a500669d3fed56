"""The training step of the benchmarks in eager PyTorch: channels_last, autograd.grad on the images, DistributedDataParallel
over Gloo. The benchmarks start one process per rank; rank 0 prints the median seconds.

    pytorch_step.py RANK WORLD_SIZE PORT THREADS BATCH WARM_UP STEPS cpu|cuda|cuda-tf32
"""

import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F

EPSILON, STEP_SIZE, ATTACK_STEPS = 8 / 255, 2 / 255, 10


class Block(nn.Module):
    def __init__(self, planes_in, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or planes_in != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(planes_in, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


def resnet18():
    planes, layers = 64, [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    for width, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        for stride_of_block in (stride, 1):
            layers.append(Block(planes, width, stride_of_block))
            planes = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def pgd(network, images, labels):
    network.eval()
    adversarial = (images + torch.empty_like(images).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(ATTACK_STEPS):
        adversarial.requires_grad_(True)
        loss = F.cross_entropy(network(adversarial), labels, reduction="sum")
        gradient = torch.autograd.grad(loss, adversarial)[0]
        adversarial = adversarial.detach() + STEP_SIZE * gradient.sign()
        adversarial = torch.min(torch.max(adversarial, images - EPSILON), images + EPSILON).clamp(0, 1)
    network.train()
    return adversarial


def main():
    rank, world_size, port, threads, batch, warm_up, steps = map(int, sys.argv[1:8])
    device = "cpu" if sys.argv[8] == "cpu" else "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = sys.argv[8] == "cuda-tf32"
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(threads)
    torch.manual_seed(rank)
    network = resnet18().to(device, memory_format=torch.channels_last)
    model = network
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
        model = nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    images = torch.rand(batch, 3, 32, 32).to(device).contiguous(memory_format=torch.channels_last)
    labels = (torch.arange(batch) % 10).to(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for step in range(warm_up + steps):
        if world_size > 1:
            dist.barrier()
        wait()
        began = time.perf_counter()
        adversarial = pgd(network, images, labels)
        loss = F.cross_entropy(model(adversarial), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        wait()
        if step >= warm_up:
            seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(torch.__version__, statistics.median(seconds))


main()
