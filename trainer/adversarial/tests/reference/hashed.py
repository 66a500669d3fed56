"""Tensors that the tests in Rust compute too, for the other scripts here."""

import numpy as np
import torch


def numbers(stream, shape):
    """Numbers in [-1, 1), exact in float64: the hash lowbias32 of (index + stream · 0x9E3779B9)."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint32) + np.uint32(stream * 0x9E3779B9 & 0xFFFFFFFF)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return torch.from_numpy(x.astype(np.float64) / 2.0**31 - 1.0).reshape(shape)


def fill(model):
    """Fixed values for all of the state, in the order of state_dict."""
    with torch.no_grad():
        for stream, (name, tensor) in enumerate(model.state_dict().items()):
            if name.endswith("num_batches_tracked"):
                tensor.fill_(stream)
                continue
            values = numbers(stream, tuple(tensor.shape))
            if name.endswith("running_var"):
                values = 1 + 0.5 * values
            elif name.endswith("running_mean"):
                values = 0.1 * values
            elif tensor.dim() == 1 and name.endswith("weight"):
                values = 1 + 0.2 * values
            elif tensor.dim() == 1:
                values = 0.1 * values
            else:
                values = values * (2.0 / np.sqrt(float(np.prod(tensor.shape[1:]))))
            tensor.copy_(values)
    return model
