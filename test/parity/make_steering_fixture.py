"""Steers and ablates latents of a small autoencoder in the example's language model, in plain PyTorch and float64, and writes down what the model says next:
fixtures/steering.json. test/ask/steering.test.ts and src/metrics/loss.test.ts compare.

    /usr/bin/python3 test/parity/make_steering_fixture.py       (PyTorch 1.13 or later; a few seconds)

The autoencoder's weights follow from `wave`, so that they need no file. Nothing is shared with Saetta: the model is that of make_loss_fixture.py.
"""

import json
import os

import torch
from torch.nn import functional as F

from make_loss_fixture import HERE, MODEL, START, TENSORS, draw, run, weights

TENSOR = "/transformer/h.3/Add_1_output_0"
LATENTS, K, D = 48, 6, 256
TEXT = "The jury said it did find that many of the old laws were out of date"
TOKENS = [START, 544, 6374, 750, 368, 950, 1547, 352, 934, 271, 263, 1137, 3279, 597, 542, 271, 4334]  # of TEXT, by the example's tokenizer
NEW = 8  # tokens of a continuation
# Each case: edits of (latent, kind, value, positions). A negative latent is the first, second.. in
# the order of activity, -1 the most active; positions None: every row but those of start tokens.
CASES = {
    "nothing": [],
    "set": [(7, "set", 9.0, None)],
    "set at two tokens": [(-2, "set", 9.0, [3, 5])],
    "add": [(-2, "add", 6.5, None)],
    "add against": [(7, "add", -6.5, [len(TOKENS) - 1])],
    "remove": [(-1, "remove", 0.0, None)],
    "several": [(7, "set", 4.0, None), (7, "add", 2.0, [2]), (-2, "add", 3.0, None), (-1, "remove", 0.0, [4, 6, 8])],
}


def wave(count, phase):
    """Numbers between -1 and 1 that follow from their places: of 32 bits, as files have them."""
    i = torch.arange(count, dtype=torch.float64)
    return torch.sin(i * 12.9898 + phase).mul(43758.5453).frac().float().double()


def autoencoder():
    rows = wave(LATENTS * D, 0.5).view(LATENTS, D)
    rows = (rows / rows.norm(dim=1, keepdim=True)).float().double()
    return {"rows": rows, "bias": 0.1 * wave(LATENTS, 1.5), "pre": wave(D, 2.5)}


def encode(sae, x):
    """x [.., D] -> activations [.., LATENTS] of which K are not 0."""
    pre = F.relu((x - sae["pre"]) @ sae["rows"].T + sae["bias"])
    top = pre.topk(K, -1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values)


def editor(sae, tokens, edits):
    """What the rows of tokens [1, T] become."""
    counts = tokens[0] != START

    def replace(x):
        z = encode(sae, x)
        change = torch.zeros_like(z)
        for latent, kind, value, positions in edits:
            rows = counts.clone() if positions is None else torch.zeros_like(counts)
            if positions is not None:
                rows[positions] = True
            if kind == "add":
                change[0, rows, latent] += value
            else:
                change[0, rows, latent] = (0.0 if kind == "remove" else value) - z[0, rows, latent]
        return x + change @ sae["rows"]

    return replace


def main():
    torch.set_grad_enabled(False)
    w = weights(MODEL)
    sae = autoencoder()
    contexts = draw(w)
    tokens = torch.tensor([TOKENS])
    at = TENSORS[TENSOR]
    _, x = run(w, tokens, at)
    z = encode(sae, x)
    order = encode(sae, run(w, contexts, at)[1])[contexts != START].sum(0).argsort(descending=True).tolist()
    cases = []
    for name, edits in CASES.items():
        edits = [(order[-latent - 1] if latent < 0 else latent, kind, value, positions) for latent, kind, value, positions in edits]
        grown, greedy = tokens, []
        for _ in range(NEW):
            logits, _ = run(w, grown, at, editor(sae, grown, edits))
            if not greedy:
                first = logits[0]
            greedy.append(int(logits[0, -1].argmax()))
            grown = torch.cat([grown, torch.tensor([[greedy[-1]]])], 1)
        loss = F.nll_loss(first[:-1].log_softmax(-1)[tokens[0, :-1] != START], tokens[0, 1:][tokens[0, :-1] != START])
        top = first[-1].topk(8)
        cases.append({
            "name": name,
            "edits": [{"latent": latent, "kind": kind, "value": value, "positions": "all" if positions is None else positions} for latent, kind, value, positions in edits],
            "top": top.indices.tolist(),
            "logits": top.values.tolist(),
            "probabilities": first[-1].softmax(-1)[top.indices].tolist(),
            "loss": loss.item(),
            "greedy": greedy,
        })

    # Each latent removed from all contexts: what `eval --ablate` measures.
    counts = contexts != START
    predicts = counts[:, :-1]
    original, _ = run(w, contexts)
    before = original[:, :-1].log_softmax(-1)
    ablated = []
    for latents in order[:1], order[1:2], order[-1:], order[:3]:
        def replace(x):
            removed = torch.zeros(LATENTS, dtype=torch.float64)
            removed[latents] = 1
            return x - counts[..., None] * ((encode(sae, x) * removed) @ sae["rows"])

        logits, x = run(w, contexts, at, replace)
        after = logits[:, :-1].log_softmax(-1)
        fires = (encode(sae, x)[..., latents] > 0).any(-1) & counts
        loss = lambda logp: F.nll_loss(logp[predicts], contexts[:, 1:][predicts]).item()
        here = fires[:, :-1]
        change = F.nll_loss(after.flatten(0, 1), contexts[:, 1:].flatten(), reduction="none") - F.nll_loss(before.flatten(0, 1), contexts[:, 1:].flatten(), reduction="none")
        ablated.append({
            "latents": latents,
            "firings": int(fires.sum()),
            "original": loss(before),
            "cross_entropy": loss(after),
            "kl": (before.exp() * (before - after)).sum(-1)[predicts].mean().item(),
            "loss_increase_where_active": change.view_as(here)[here].mean().item() if here.any() else None,
        })
    with open(os.path.join(HERE, "fixtures/steering.json"), "w") as file:
        json.dump({"tensor": TENSOR, "latents": LATENTS, "k": K, "text": TEXT, "tokens": TOKENS, "activations": z[0].tolist(), "cases": cases, "context": contexts.shape[1], "contexts": contexts.flatten().tolist(), "ablated": ablated}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
