"""The data of bench/learning-rates.mjs: python3 bench/learning_rates_data.py FOLDER

Writes NAME-train.h5 and NAME-val.h5 (float16). ex1 and ex3: the residual stream after blocks 1 and 3
of the example model on its text, of which the last 3 % of the documents are held out. z64 and z768:
rows from a dictionary of random directions with Zipf frequencies and a little noise. Needs torch,
onnx, tokenizers and h5py, and a GPU to be quick.
"""

import gzip
import os
import sys

import h5py
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from tokenizers import Tokenizer

WIDTH, HEADS, CONTEXT = 256, 4, 256
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def residuals(weights, ids, blocks):
    """ids [contexts, CONTEXT] -> the residual stream [contexts, CONTEXT, WIDTH] after each block."""
    at = lambda name: weights[f"transformer.{name}"]
    x = at("wte.weight")[ids] + at("wpe.weight")[: ids.shape[1]]
    found = {}
    for block in range(max(blocks) + 1):
        of = lambda name: at(f"h.{block}.{name}")
        linear = lambda y, name: F.linear(y, of(f"{name}.weight"), of(f"{name}.bias"))
        norm = lambda y, name: F.layer_norm(y, (WIDTH,), of(f"{name}.weight"), of(f"{name}.bias"))
        parts = linear(norm(x, "ln_1"), "attn.c_attn").split(WIDTH, 2)
        heads = [part.view(*part.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).reshape(*x.shape)
        x = x + linear(mixed, "attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, "ln_2"), "mlp.c_fc"), approximate="tanh"), "mlp.c_proj")
        if block in blocks:
            found[block] = x
    return found


def write(folder, name, rows):
    with h5py.File(os.path.join(folder, f"{name}.h5"), "w") as file:
        file["hidden_states"] = rows.cpu().numpy()


def example(folder, generator):
    model = onnx.load(os.path.join(ROOT, "brown-gpt", "model.onnx"))
    weights = {
        one.name.replace("_f16", ""): torch.tensor(numpy_helper.to_array(one).astype(np.float32)).to(DEVICE)
        for one in model.graph.initializer
    }
    tokenizer = Tokenizer.from_file(os.path.join(ROOT, "brown-gpt", "tokenizer.json"))
    with gzip.open(os.path.join(ROOT, "brown.txt.gz"), "rt", encoding="utf8") as file:
        documents = [one for one in file.read().split("\n\n") if one]
    border = int(len(documents) * 0.97)
    for part, some in (("train", documents[:border]), ("val", documents[border:])):
        ids = np.concatenate([[0, *one.ids] for one in tokenizer.encode_batch(some)])
        contexts = len(ids) // CONTEXT
        ids = torch.tensor(ids[: contexts * CONTEXT], dtype=torch.int64).view(contexts, CONTEXT).to(DEVICE)
        rows = {1: [], 3: []}
        with torch.no_grad():
            for first in range(0, contexts, 512):
                for block, found in residuals(weights, ids[first : first + 512], list(rows)).items():
                    rows[block].append(found.reshape(-1, WIDTH).half())
        order = torch.randperm(contexts * CONTEXT, device=DEVICE, generator=generator)
        for block, parts in rows.items():
            all_rows = torch.cat(parts)
            write(folder, f"ex{block}-{part}", all_rows[order] if part == "train" else all_rows)


def zipf(folder, generator, name, width, directions, active, rows, held_out):
    dictionary = F.normalize(torch.randn(directions, width, device=DEVICE, generator=generator), dim=1)
    weights = torch.arange(1, directions + 1, device=DEVICE).float() ** -0.8
    probability = (weights / weights.sum() * active).clamp(max=0.5)
    for part, count in (("train", rows), ("val", held_out)):
        path = os.path.join(folder, f"{name}-{part}.h5")
        with h5py.File(path, "w") as file:
            to = file.create_dataset("hidden_states", (count, width), "f2")
            for first in range(0, count, 32768):
                size = (min(32768, count - first), directions)
                on = torch.rand(size, device=DEVICE, generator=generator) < probability
                values = on * (1 + torch.rand(size, device=DEVICE, generator=generator))
                noise = 0.05 * torch.randn(size[0], width, device=DEVICE, generator=generator)
                to[first : first + size[0]] = (values @ dictionary + noise).half().cpu().numpy()


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    seeded = torch.Generator(device=DEVICE).manual_seed(0)
    example(sys.argv[1], seeded)
    zipf(sys.argv[1], seeded, "z768", 768, 12288, 30, 1_500_000, 32768)
    zipf(sys.argv[1], seeded, "z64", 64, 1024, 6, 3_000_000, 32768)
