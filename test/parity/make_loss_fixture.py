"""Runs the example's language model in plain PyTorch, in float64, on the weights of its ONNX file, with one tensor as it is, scaled, set to zero and set to its mean, and
writes down tokens, cross-entropies and divergences: fixtures/loss.json. src/metrics/loss.test.ts compares.

    /usr/bin/python3 test/parity/make_loss_fixture.py       (PyTorch 1.13 or later; a few seconds)

The tokens are drawn from the model itself. Nothing is shared with Saetta: the ONNX file is read here field by field, and the model is written out below.
"""

import json
import math
import os
import sys

try:
    import numpy as np
    import torch
    from torch.nn import functional as F
except ImportError as missing:
    sys.exit(f"make_loss_fixture.py: {missing}; the fixture needs PyTorch (Debian: apt install python3-torch), the test runs without it on the committed one")

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "../../examples/brown-gpt/model.onnx")
CONTEXTS, T, HEADS, LAYERS, START = 3, 24, 4, 6, 0
SCALE = 0.9
# The residual stream after block 3, and after the attention of block 2.
TENSORS = {"/transformer/h.3/Add_1_output_0": (3, "block"), "/transformer/h.2/Add_output_0": (2, "attention")}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        yield tag >> 3, value


def weights(path):
    """ModelProto.graph = 7, GraphProto.initializer = 5; TensorProto: dims = 1, data_type = 2 (1: float32, 10: float16), name = 8, raw_data = 9."""
    with open(path, "rb") as file:
        graph = next(memoryview(value) for number, value in fields(file.read()) if number == 7)
    found = {}
    for number, value in fields(graph):
        if number != 5:
            continue
        dims, dtype, name, raw = [], None, None, None
        for part, content in fields(value):
            if part == 1:
                if isinstance(content, int):
                    dims.append(content)
                else:
                    at = 0
                    while at < len(content):
                        size, at = varint(content, at)
                        dims.append(size)
            elif part == 2:
                dtype = content
            elif part == 8:
                name = bytes(content).decode()
            elif part == 9:
                raw = content
        array = np.frombuffer(raw, {1: np.float32, 10: np.float16}[dtype]).reshape(dims).astype(np.float64)
        found[name.replace("_f16", "")] = torch.from_numpy(array)
    return found


def run(w, tokens, tensor=None, replace=None):
    """tokens [B, T] -> logits [B, T, V] and the tensor [B, T, d], which `replace` may make another."""
    caught = None

    def at(layer, place, x):
        nonlocal caught
        if tensor != (layer, place):
            return x
        caught = x
        return x if replace is None else replace(x)

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    B, length = tokens.shape
    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][:length]
    d = x.shape[-1]
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    for i in range(LAYERS):
        h = f"transformer.h.{i}"
        q, k, v = (part.view(B, length, HEADS, d // HEADS).transpose(1, 2) for part in linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").split(d, -1))
        scores = (q @ k.transpose(-1, -2) / math.sqrt(d // HEADS)).masked_fill(later, -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, length, d)
        x = at(i, "attention", x + linear(mixed, f"{h}.attn.c_proj"))
        hidden = linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
        hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        x = at(i, "block", x + linear(hidden, f"{h}.mlp.c_proj"))
    return norm(x, "transformer.ln_f") @ w["transformer.wte.weight"].T, caught


def draw(w):
    """Contexts that begin with the start token; the second has another document in it."""
    torch.manual_seed(0)
    tokens = torch.full((CONTEXTS, 1), START)
    while tokens.shape[1] < T:
        logits, _ = run(w, tokens)
        drawn = torch.multinomial(logits[:, -1].softmax(-1), 1)
        if tokens.shape[1] == T // 2:
            drawn[1] = START
        tokens = torch.cat([tokens, drawn], 1)
    return tokens


def measure(w, tokens, counts, original, tensor, replace):
    """Over the positions that count and have a next token."""
    logits, _ = run(w, tokens, tensor, replace)
    counts = counts[:, :-1]
    ours, theirs = logits[:, :-1].log_softmax(-1), original[:, :-1].log_softmax(-1)
    loss = F.nll_loss(ours[counts], tokens[:, 1:][counts])
    return {"cross_entropy": loss.item(), "kl": (theirs.exp() * (theirs - ours)).sum(-1)[counts].mean().item()}


def main():
    torch.set_grad_enabled(False)
    w = weights(MODEL)
    tokens = draw(w)
    every = torch.ones_like(tokens, dtype=torch.bool)
    cases = []
    for name, tensor in TENSORS.items():
        original, x = run(w, tokens, tensor)
        for keeps_start, ablate in (True, "all"), (True, "spliced"), (False, "all"):
            spliced = tokens != START if keeps_start else every
            ablated = spliced if ablate == "spliced" else every
            mean = x[spliced].mean(0)
            splices = {
                "original": lambda x: x,
                "scaled": lambda x: torch.where(spliced[..., None], SCALE * x, x),
                "zero": lambda x: torch.where(ablated[..., None], torch.zeros_like(x), x),
                "mean": lambda x: torch.where(ablated[..., None], mean.expand_as(x), x),
            }
            results = {splice: measure(w, tokens, spliced, original, tensor, replace) for splice, replace in splices.items()}
            cases.append({"tensor": name, "keeps_start": keeps_start, "ablate": ablate, "results": results})
    with open(os.path.join(HERE, "fixtures/loss.json"), "w") as file:
        json.dump({"scale": SCALE, "context": T, "tokens": tokens.flatten().tolist(), "cases": cases}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
