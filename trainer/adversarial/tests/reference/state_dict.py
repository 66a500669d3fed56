"""Writes state_dict.pt, wrapped.pt and averaged.pt in this folder with torch.save, for ../weights.rs to read.

Run with  pip install torch==2.11.0 numpy && python state_dict.py
"""

import collections
import pathlib

import torch

here = pathlib.Path(__file__).parent
numbers = torch.arange(12.0)
state = collections.OrderedDict(
    weight=numbers.reshape(3, 4),
    transposed=numbers.reshape(3, 4).t(),
    part=numbers.reshape(3, 4)[1:, 2:],
    parameter=torch.nn.Parameter(torch.tensor([0.5, -2.0])),
    double=torch.tensor([1e-300], dtype=torch.float64),
    half=torch.tensor([1.5, -3.0], dtype=torch.float16),
    bfloat=torch.tensor([2.5], dtype=torch.bfloat16),
    count=torch.tensor(2**40),
    empty=torch.zeros(0, 3),
)
state._metadata = collections.OrderedDict(version=1)
torch.save(state, here / "state_dict.pt")
wrapped = {"epoch": 7, "rate": 0.1, "best_acc1": torch.tensor(76.5), "optimizer": {"lr": [1, None, True]},
           "state_dict": {"module." + name: tensor for name, tensor in state.items()}}
torch.save(wrapped, here / "wrapped.pt")
torch.save({"model": {"module.weight": numbers}, "model_ema": {"weight": numbers}, "mean": {"of": numbers}}, here / "averaged.pt")
torch.save([1, 2, 3], here / "no_state_dict.pt")
