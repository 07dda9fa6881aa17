"""The mended `simple` recipe in plain PyTorch, in float32, for fvu.mjs: trains from a given start on given rows in the given order and prints, as JSON, the FVU of
held-out rows of the start, of what it trained and of what Saetta trained. Mended as in test/parity/make_fixtures.py, which is checked step by step."""

import json
import os
import sys
import time

import h5py
import numpy as np
import torch
from torch.nn import functional as F

NAMES = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


def weights_of(folder):
    with open(os.path.join(folder, "sae.safetensors"), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        body = file.read()
    found = []
    for name in NAMES:
        begin, end = header[name]["data_offsets"]
        assert header[name]["dtype"] == "F32", header[name]
        found.append(torch.from_numpy(np.frombuffer(body[begin:end], "<f4").reshape(header[name]["shape"]).copy()))
    return found


def decode(indices, values, decoder):
    latents = torch.zeros(values.shape[0], decoder.shape[0], dtype=values.dtype).scatter(1, indices, values.relu())
    return latents @ decoder


def forward(x, weights, k):
    encoder, bias, decoder, pre_bias = weights
    pre = F.linear(x - pre_bias, encoder, bias)
    values, indices = pre.topk(k, dim=-1)
    return pre, indices, values, decode(indices, values, decoder) + pre_bias


def fvu(weights, x, k):
    """sum (x - x_hat)^2 / sum (x - mean of x)^2, added up in float64."""
    with torch.no_grad():
        error = sum((forward(part, weights, k)[3] - part).double().pow(2).sum() for part in x.split(2048))
        return (error / (x.double() - x.double().mean(0)).pow(2).sum()).item()


def train(spec, data, rows, weights, mse_scale):
    params = [torch.nn.Parameter(w.clone()) for w in weights]
    decoder = params[2]
    optimizer = torch.optim.Adam(params, lr=spec["lr"], betas=(0.9, 0.999), eps=1e-8)
    age = torch.zeros(decoder.shape[0], dtype=torch.long)
    batch = spec["batch"]
    for begin in range(0, len(rows), batch):
        x = torch.from_numpy(data[rows[begin : begin + batch]]).float()
        dead = age > spec["deadTokens"]
        pre, indices, values, recons = forward(x, params, spec["k"])
        loss = mse_scale * (recons - x).pow(2).mean()
        if dead.any():
            target = (x - recons).detach()
            top = pre.masked_fill(~dead, -torch.inf).topk(min(spec["auxk"], int(dead.sum())), dim=-1)
            auxiliary = decode(top.indices, top.values, decoder)
            loss = loss + (auxiliary - target).pow(2).mean() / (target - target.mean(0)).pow(2).mean() / 32
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            decoder.grad -= (decoder * decoder.grad).sum(1, keepdim=True) * decoder
            norm = torch.sqrt(sum(p.grad.pow(2).sum() for p in params))
            for p in params:
                p.grad /= norm.clamp(min=1.0)
        optimizer.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
        fired = torch.zeros_like(dead)
        fired[indices[values > 1e-3]] = True
        age = torch.where(fired, torch.zeros_like(age), age + len(x))
    return [p.detach() for p in params], int(dead.sum())


def main():
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    with h5py.File(spec["acts"]) as file:
        stored = file["hidden_states"]
        data = stored[:].reshape(-1, stored.shape[-1])
    rows = np.fromfile(spec["rows"], "<u4")
    held = torch.from_numpy(data[np.fromfile(spec["held"], "<u4")]).float()
    with open(os.path.join(spec["start"], "state.json")) as file:
        mse_scale = json.load(file)["progress"]["mse_scale"]
    start = weights_of(spec["start"])
    began = time.time()
    trained, dead = train(spec, data, rows, start, mse_scale)
    seconds = time.time() - began
    k = spec["k"]
    found = dict(start=fvu(start, held, k), theirs=fvu(trained, held, k), ours=fvu(weights_of(spec["ours"]), held, k))
    print(json.dumps(dict(found, seconds=seconds, dead=dead)))


if __name__ == "__main__":
    main()
