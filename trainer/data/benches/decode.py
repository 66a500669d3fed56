"""Measures the images per second that Pillow decodes and resizes to 224x224 on one thread, as torchvision's RandomResizedCrop."""

import math
import pathlib
import random
import sys
import time

import PIL
from PIL import Image
import numpy

files = sorted(pathlib.Path(sys.argv[1]).rglob("*.jpg"))
random.seed(0)


def random_crop(width, height):
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def load(file):
    image = Image.open(file).convert("RGB")
    image = image.crop(random_crop(*image.size)).resize((224, 224), Image.BILINEAR)
    return numpy.asarray(image).transpose(2, 0, 1).copy()


for file in files:
    load(file)
start, used = time.perf_counter(), time.process_time()
for _ in range(12):
    for file in files:
        load(file)
count = 12 * len(files)
by_clock, by_processor = count / (time.perf_counter() - start), count / (time.process_time() - used)
print(f" 1 threads  random crop, Pillow {by_clock:>6.0f} images/s  {by_processor:>6.0f} images per processor second  ({PIL.__version__})")
