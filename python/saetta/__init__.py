"""Trains sparse autoencoders with the command `saetta`, from tensors, files or models of PyTorch.

    import saetta

    run = saetta.train(acts_iterator, latents=16384, k=32, tokens=3_000_000)
    for step in run:
        print(step.step, step.fvu)
    sae = saetta.load(run.path)             # a torch.nn.Module: encode, decode, forward
    run.report("features.html")
"""

from __future__ import annotations

from typing import Any

from .errors import Error, UsageError
from .run import Run, Step, train
from .save import save

__all__ = ["Error", "Run", "Sae", "Step", "UsageError", "from_hf", "load", "save", "token_batches", "train"]

#: Need torch, which takes seconds to import: loaded when they are first used.
_OF_TORCH = {"Sae": "sae", "load": "sae", "from_hf": "hf", "token_batches": "hf"}


def __getattr__(name: str) -> Any:
    if name not in _OF_TORCH:
        raise AttributeError(f"module 'saetta' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_OF_TORCH[name]}", __name__), name)
