"""Activations of a Hugging Face model -> the HDF5 file that `saetta train` reads. Plain PyTorch, transformers and h5py; nothing of Saetta.

    python3 harvest.py --model gpt2 --layer 6 --text my.txt --out acts.h5
    saetta train acts.h5 --latents 16384 --k 32 --out runs/first

The file: hidden_states [contexts, tokens, width] (float16, or --dtype float32), the residual stream after that layer; tokens int32 [contexts, tokens]; attributes start_token (the id that
begins each document, whose rows training leaves out by default), model, tensor and tokenizer (the path of a tokenizer.json, for `saetta eval --features`).
Documents, which blank lines separate, are packed one after the other into contexts of the same length, each document after a start token, so that no row is padding; a context begins
with a start token too.
"""
import argparse
import os

import h5py
import numpy as np
import torch


def contexts(documents, start, length):
    """Token ids of documents -> rows of `length` ids, each beginning with the start token. What is left at the end and fills no context is dropped."""
    row = [start]
    for ids in documents:
        if len(row) > 1:
            row.append(start)
        for token in ids:
            if len(row) == length:
                yield row
                row = [start]
            row.append(token)
        if len(row) == length:
            yield row
            row = [start]
    if len(row) == length:
        yield row


def batches(rows, size):
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def checked(values, dtype):
    """Values as they are stored; what is beyond the range of float16 is an error and not an infinity."""
    stored = values.to(getattr(torch, dtype)).cpu().numpy()
    if not np.isfinite(stored).all():
        raise SystemExit("a value is not finite or beyond the range of float16: use --dtype float32")
    return stored


@torch.no_grad()
def harvest(forward, rows, out, attributes, dtype="float16", batch=8):
    """`forward`: ids [batch, tokens] -> activations [batch, tokens, width]. Writes `out`; returns the number of contexts."""
    written = 0
    part = f"{out}.part"
    with h5py.File(part, "w") as file:
        hidden = tokens = None
        for ids in batches(rows, batch):
            ids = torch.tensor(ids)
            values = checked(forward(ids), dtype)
            if hidden is None:
                shape = values.shape[1:]
                # Chunks of one context each; a file of known length may as well be contiguous, which reads faster.
                hidden = file.create_dataset("hidden_states", (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape))
                tokens = file.create_dataset("tokens", (0, shape[0]), "int32", maxshape=(None, shape[0]), chunks=(64, shape[0]))
            for dataset, data in ((hidden, values), (tokens, ids.numpy())):
                dataset.resize(written + len(ids), axis=0)
                dataset[written:] = data
            written += len(ids)
        for name, value in attributes.items():
            file.attrs[name] = value
    if written == 0:
        os.remove(part)
        raise SystemExit("the text does not fill one context: lower --context")
    os.replace(part, out)
    return written


def main():
    parser = argparse.ArgumentParser(description="activations of a Hugging Face model into an HDF5 file for saetta train")
    parser.add_argument("--model", required=True, help="name or folder of a causal language model")
    parser.add_argument("--layer", type=int, required=True, help="residual stream after this many layers; 0 is the embedding")
    parser.add_argument("--text", required=True, help="UTF-8 text, documents separated by blank lines")
    parser.add_argument("--out", required=True)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="contexts at once")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    args = parser.parse_args()

    from transformers import AutoModel, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModel.from_pretrained(args.model).to(device).eval()
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    attributes = {"start_token": start, "model": args.model, "tensor": f"hidden_states[{args.layer}]"}
    folder = f"{args.out}.tokenizer"
    tokenizer.save_pretrained(folder)
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        attributes["tokenizer"] = os.path.abspath(os.path.join(folder, "tokenizer.json"))

    def documents():
        with open(args.text, encoding="utf-8") as f:
            for text in f.read().split("\n\n"):
                if text.strip():
                    yield tokenizer(text, add_special_tokens=False)["input_ids"]

    def forward(ids):
        return model(input_ids=ids.to(device), output_hidden_states=True).hidden_states[args.layer]

    written = harvest(forward, contexts(documents(), start, args.context), args.out, attributes, args.dtype, args.batch)
    print(f"{args.out}: {written} contexts of {args.context} tokens")


if __name__ == "__main__":
    main()
