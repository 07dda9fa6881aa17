"""Loads an autoencoder that Saetta trained, in plain PyTorch: nothing else is needed, and nothing of Saetta.

    sae = load("runs/first")                 # a run folder (its newest checkpoint), a checkpoint folder, or an imported autoencoder
    latents = sae.encode(x)                  # x: [rows, width] -> [rows, latents], at most k of a row above 0
    x_hat = sae.decode(latents, x)           # x is needed where rows are normalised one by one

As `saetta eval` does, it takes the running average of the weights where training kept one; load(path, average=False) takes those of the last step.

    python3 load_checkpoint.py runs/first acts.h5 [DATASET]

prints the share of the variance of the first 4096 rows that is not explained (needs h5py). DATASET: as `saetta train --dataset`; default hidden_states, else
the only one that activations can be in.
"""
import json
import os
import struct
import sys

import torch

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_safetensors(path):
    """-> tensors by name, and the metadata."""
    with open(path, "rb") as f:
        data = f.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    about = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = bytearray(data[8 + length + begin : 8 + length + end])
        tensors[name] = torch.frombuffer(raw, dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"]).float()
    return tensors, about


class Sae(torch.nn.Module):
    def __init__(self, encoder, encoder_bias, decoder, pre_bias, k, normalization="none", undone_with=None):
        super().__init__()
        self.encoder = torch.nn.Parameter(encoder)  # [latents, width]
        self.encoder_bias = torch.nn.Parameter(encoder_bias)
        self.decoder = torch.nn.Parameter(decoder)  # [latents, width], rows of norm 1
        self.pre_bias = torch.nn.Parameter(pre_bias)
        self.n, self.d = encoder.shape
        self.k = k
        self.normalization = normalization
        self.undone_with = undone_with

    def statistics(self, x):
        """Mean of each row, what it is divided by, and what the way back multiplies by."""
        if self.normalization in ("none", "scale"):  # scale is in the weights
            one = torch.ones_like(x[..., :1])
            return torch.zeros_like(one), one, one
        mean = x.mean(-1, keepdim=True)
        if self.normalization == "unit":
            norm = (x - mean).norm(dim=-1, keepdim=True)
            return mean, norm, norm
        std = x.std(-1, keepdim=True)
        return mean, std + 1e-5, std if self.undone_with == "std" else std + 1e-5

    def encode(self, x):
        mean, size, _ = self.statistics(x)
        pre = ((x - mean) / size - self.pre_bias) @ self.encoder.T + self.encoder_bias
        value, latent = pre.topk(self.k)
        return torch.zeros_like(pre).scatter_(-1, latent, value.relu())

    def decode(self, latents, x):
        mean, _, back = self.statistics(x)
        return (latents @ self.decoder + self.pre_bias) * back + mean

    def forward(self, x):
        return self.decode(self.encode(x), x)


def load(path, average=True):
    checkpoints = os.path.join(path, "checkpoints")
    if os.path.isdir(checkpoints):
        steps = sorted(name for name in os.listdir(checkpoints) if name.startswith("step-") and name[5:].isdigit())
        path = os.path.join(checkpoints, steps[-1])
    with open(os.path.join(path, "cfg.json")) as f:
        cfg = json.load(f)
    ours = cfg.get("saetta", {})
    normalization = ours.get("normalization", "none")
    file = os.path.join(path, "saetta.safetensors" if normalization in ("unit", "layer_norm") else "sae.safetensors")
    ema = os.path.join(path, "ema.safetensors")
    averaged = average and os.path.exists(ema)
    w, about = read_safetensors(ema if averaged else file)
    if averaged:
        # The average began with zeros: what of it is weights is 1 - decay^updates. Averaging shortens the rows of the decoder.
        share = 1 - float(about["decay"]) ** int(about["updates"])
        w = {name: tensor / share for name, tensor in w.items()}
        w["W_dec"] = w["W_dec"] / w["W_dec"].norm(dim=1, keepdim=True)
    return Sae(w["encoder.weight"], w["encoder.bias"], w["W_dec"], w["b_dec"], cfg["k"], normalization, ours.get("undone_with"))


def activations(file, name=None):
    """The dataset `name` of an open HDF5 file; by default hidden_states, else the only one of floats with 2 or 3 axes."""
    found = []
    file.visititems(lambda path, it: found.append(path) if getattr(it, "ndim", 0) in (2, 3) and it.dtype.kind == "f" else None)
    if name is None:
        name = "hidden_states" if "hidden_states" in file or len(found) != 1 else found[0]
    if name.strip("/") not in found:
        sys.exit(f"{file.filename}: no dataset {name} of activations; the file has {', '.join(found) or 'none'}; name one as the last argument")
    return file[name]


if __name__ == "__main__":
    import h5py

    sae = load(sys.argv[1])
    with h5py.File(sys.argv[2]) as f:
        acts = activations(f, *sys.argv[3:4])
        x = torch.from_numpy(acts[: max(1, 4096 // (acts.shape[1] if acts.ndim == 3 else 1))]).float().flatten(0, -2)[:4096]
    with torch.no_grad():
        error = (x - sae(x)).pow(2).sum()
    print(f"FVU {(error / (x - x.mean(0)).pow(2).sum()).item():.4f} of {len(x)} rows, k = {sae.k} of {sae.n} latents")
