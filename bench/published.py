"""Twenty steps of the published code of SAELens, dictionary_learning and sparsify on a CPU, for published.mjs, which trains Saetta from the same start on the same rows and compares
the losses. Writes into FOLDER: rows.safetensors, targets.safetensors, a folder for each start (in sparsify's layout), and cases.json: each case with what the library was told, what
Saetta is to be told, and the library's losses.
Usage: published.py PACKAGES FOLDER. PACKAGES holds the folders sae_lens, dictionary_learning and sparsify of the three packages. Needs torch, numpy, safetensors, einops and tqdm.
"""

import importlib
import json
import math
import os
import sys

import torch
from safetensors.torch import save_file

import published_cases
from published_cases import BATCH, D, K, LR, N, STEPS, THRESHOLD
from published_libraries import open_packages


def draw_rows():
    """Rows [BATCH * STEPS, D] of a dictionary of 256 directions, of which some eight are in a row, and targets that are a map of them."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    directions = normal(256, D)
    directions /= directions.norm(dim=1, keepdim=True)
    rows = BATCH * STEPS
    codes = (torch.rand(rows, 256, generator=generator) < 8 / 256) * torch.rand(rows, 256, generator=generator) * 2
    x = codes @ directions + 0.05 * normal(rows, D) + 0.2 * normal(D)
    y = torch.relu(x @ normal(D, D) / math.sqrt(D)) + 0.3 * x + 0.1
    decoder = normal(N, D)
    decoder /= decoder.norm(dim=1, keepdim=True)
    return x.contiguous(), y.contiguous(), decoder.contiguous()


def start_of(decoder, x):
    """The tied start, with dictionary_learning's geometric median of the first batch as b_dec, which its trainers set in their first step."""
    module = importlib.import_module("dictionary_learning.trainers.top_k")
    return dict(W_enc=decoder.T.contiguous(), b_enc=torch.zeros(N), W_dec=decoder, b_dec=module.geometric_median(x[:BATCH]), threshold=torch.full((N,), THRESHOLD))


def write_start(folder, start, **cfg):
    os.makedirs(folder)
    tensors = {"encoder.weight": start["W_enc"].T.contiguous(), "encoder.bias": start["b_enc"], "W_dec": start["W_dec"], "b_dec": start["b_dec"]}
    if cfg.get("skip_connection"):
        tensors["W_skip"] = torch.zeros(D, D)
    save_file(tensors, os.path.join(folder, "sae.safetensors"))
    with open(os.path.join(folder, "cfg.json"), "w") as file:
        json.dump(dict(activation="topk", expansion_factor=N // D, normalize_decoder=not cfg.get("transcode", False), num_latents=N, k=K, multi_topk=False, **dict(dict(skip_connection=False, transcode=False), **cfg), d_in=D), file)


def main():
    packages, folder = sys.argv[1:3]
    torch.set_num_threads(1)
    versions = open_packages(packages)
    x, y, decoder = draw_rows()
    start = start_of(decoder, x)
    save_file(dict(hidden_states=x), os.path.join(folder, "rows.safetensors"))
    save_file(dict(hidden_states=y), os.path.join(folder, "targets.safetensors"))
    write_start(os.path.join(folder, "start"), start)
    # Tied weights of an autoencoder whose encoder does not subtract b_dec.
    write_start(os.path.join(folder, "start-untied"), start, transcode=True)
    # sparsify's trainers set these from the first batch.
    mean = dict(start, b_dec=x[:BATCH].mean(0))
    write_start(os.path.join(folder, "start-mean"), mean)
    first = dict(start, b_dec=y[:BATCH].mean(0), b_enc=-x[:BATCH].mean(0) @ start["W_enc"], W_dec=torch.zeros(N, D))
    write_start(os.path.join(folder, "start-transcoder"), first, transcode=True)
    write_start(os.path.join(folder, "start-skip"), first, transcode=True, skip_connection=True)
    found = published_cases.run(x, y, start, only=os.environ.get("ONLY"))
    with open(os.path.join(folder, "cases.json"), "w") as file:
        json.dump(dict(versions=versions, torch=torch.__version__, shape=dict(d=D, n=N, k=K, batch=BATCH, steps=STEPS, lr=LR), cases=found), file)


if __name__ == "__main__":
    main()
