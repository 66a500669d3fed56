"""Writes seeds/, the seed corpus of each fuzz target. Needs PyTorch, NumPy and Pillow: python3 seeds.py"""

import gzip
import hashlib
import io
import pathlib
import pickle
import struct
import tarfile

import numpy
import torch
from PIL import Image

SEEDS = pathlib.Path(__file__).parent / "seeds"


def write(target, name, content):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def encoded(mode, form, **options):
    picture = Image.effect_noise((9, 7), 60).convert(mode)
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def tar_of(files, form=tarfile.USTAR_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()[:8192].rstrip(b"\0") + b"\0" * 1024


def padded(content):
    """Pads to whole blocks of 512 bytes, as in tar."""
    return content + b"\0" * (-len(content) % 512)


jpeg = encoded("RGB", "JPEG", quality=60)
write("image", "rgb.jpg", jpeg)
write("image", "grey.jpg", encoded("L", "JPEG", quality=60))
write("image", "cmyk.jpg", encoded("CMYK", "JPEG", quality=60))
write("image", "progressive.jpg", encoded("RGB", "JPEG", progressive=True, quality=60))
for mode in ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"]:
    write("image", f"{mode.replace(';', '').lower()}.png", encoded(mode, "PNG"))

samples = [("1.cls", b"0"), ("1.jpg", jpeg), ("2.jpg", jpeg), ("2.cls", b"1")]
for form in [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]:
    names = samples if form == tarfile.USTAR_FORMAT else [("n" * 120 + name, text) for name, text in samples]
    write("tar", f"shard-{form}", b"\0" + padded(tar_of(names, form)))
    write("tar", f"fixed-checksums-{form}", b"\1" + padded(tar_of(names, form)))

idx = tar_of([("train-labels-idx1-ubyte", b"\0\0\x08\1\0\0\0\2\1\2"), ("../t10k-labels-idx1-ubyte", b"x")])
folder = tar_of([("train/a/1.jpg", jpeg), ("val/b/../../../2.jpg", jpeg), ("/train/c/3.png", b"x")])
for name, choice, archive in [("standard", b"\0", idx), ("folder", b"\1", folder)]:
    write("archive", name, choice + archive)
    write("archive", f"{name}-gz", choice + gzip.compress(archive, mtime=0))

images = struct.pack(">IIII", 0x803, 2, 28, 28) + b"\7" * (2 * 784)
labels = struct.pack(">II", 0x801, 2) + b"\3\4"
write("idx", "images", b"\0" + images)
write("idx", "labels", b"\1" + labels)
write("idx", "images-gz", b"\4" + gzip.compress(images, mtime=0))
write("idx", "labels-gz", b"\5" + gzip.compress(labels, mtime=0))

write("cifar", "complete", (b"\1\x20" + b"\x40" * 3072) * 2)
write("cifar", "one-image-missing", b"\1\x20" + b"\x40" * 3072)

pixels = numpy.arange(24, dtype=numpy.uint8).reshape(2, 2, 2, 3)
for name, arrays, save in [
    ("stored.npz", {"image": pixels, "label": numpy.array([0, 1])}, numpy.savez),
    ("packed.npz", {"x": pixels.transpose(0, 3, 1, 2).copy(), "y": numpy.array([0, 1], numpy.int32)}, numpy.savez_compressed),
]:
    out = io.BytesIO()
    save(out, **arrays)
    write("npz", name, out.getvalue())
for name, choice, array in [
    ("images.npy", b"\0", pixels),
    ("fortran.npy", b"\0", numpy.asfortranarray(pixels)),
    ("labels.npy", b"\1", numpy.array([0, 1])),
    ("small-labels.npy", b"\1", numpy.array([0, 1], numpy.int8)),
]:
    out = io.BytesIO()
    numpy.save(out, array)
    write("npz", name, choice + out.getvalue())
# Nested brackets: the time of the parser doubles with each one.
text = b"{'descr': '|u1', 'fortran_order': False, 'shape': " + b"[" * 60 + b"2), }\n"
write("npz", "nested.npy", b"\0\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(24))

header = b'{"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}'
header += b" " * (-len(header) % 8)
write("safetensors", "two", struct.pack("<Q", len(header)) + header + struct.pack("<ffq", 1, 2, 3))
header = b'{"__metadata__":{"k":"v"},"e":{"dtype":"F64","shape":[0,3],"data_offsets":[0,0]}}'
write("safetensors", "empty", struct.pack("<Q", len(header)) + header)

weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
state = {"module.weight": weight, "transposed": weight.t(), "part": weight[1:, 2:], "half": torch.ones(2).half()}
for name, content in [("plain", state), ("wrapped", {"epoch": 3, "state_dict": state})]:
    out = io.BytesIO()
    torch.save(content, out)
    write("pytorch", f"{name}.pt", out.getvalue())
    with torch.serialization._open_zipfile_reader(io.BytesIO(out.getvalue())) as archive:
        write("pytorch", f"{name}.pkl", archive.get_record("data.pkl"))
for protocol in [0, 2, 4]:
    write("pytorch", f"protocol-{protocol}.pkl", pickle.dumps({"a": [1, 2.5, "x", None, True, (1 << 70,)]}, protocol))

digest = hashlib.sha256(b"").hexdigest().encode()
write("checksums", "plain", digest + b"  train-0.tar\n" + digest + b" *./val-0.tar\n# a comment\n")
write("checksums", "escaped", b"\\" + digest + b"  a\\nb\\\\c\n")
