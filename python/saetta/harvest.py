"""Activations of a Hugging Face model into the HDF5 file that `saetta train` reads.

    python3 -m saetta.harvest --model gpt2 --layer 6 --text my.txt --out acts.h5
    saetta train acts.h5 --latents 16384 --k 32 --out runs/first

Needs PyTorch, transformers and h5py. The file has hidden_states [contexts, tokens, width] (float16, or
--dtype float32), the residual stream after that layer; tokens int32 [contexts, tokens]; and the
attributes start_token (the id that begins each document, whose rows training leaves out by default),
model, tensor and tokenizer (the path of a tokenizer.json, for `saetta eval --features`).
tokenizer_relative, and model_relative where the model is a folder, are paths from the folder of the
file, so that all can be moved together.

Documents, which blank lines separate, are packed one after the other into contexts of the same length,
each document after a start token, so that no row is padding; a context begins with a start token too.
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


def located(name, path, out):
    """The attributes that say where a file or folder is: its path, and its path from the folder of `out`."""
    near = os.path.relpath(os.path.realpath(path), os.path.realpath(os.path.dirname(out) or "."))
    return {name: os.path.abspath(path), f"{name}_relative": near.replace(os.sep, "/")}


def checked(values, dtype):
    """Values as they are stored; what is beyond the range of float16 is an error and not an infinity."""
    stored = values.to(getattr(torch, dtype)).cpu().numpy()
    if not np.isfinite(stored).all():
        raise SystemExit("a value is not finite or beyond the range of float16: use --dtype float32")
    return stored


@torch.no_grad()
def harvest(forward, rows, out, attributes, dtype="float16", batch=8):
    """`forward`: ids [batch, tokens] -> activations [batch, tokens, width]; `rows`: ids [contexts, tokens]. Writes `out`, whole or not at all."""
    rows = np.asarray(rows, dtype=np.int32)
    if len(rows) == 0:
        raise SystemExit("the text does not fill one context: lower --context")
    part = f"{out}.part"
    with h5py.File(part, "w") as file:
        hidden = None
        for first in range(0, len(rows), batch):
            values = checked(forward(torch.from_numpy(rows[first : first + batch]).long()), dtype)
            if hidden is None:
                # Of a known size, and so contiguous: the fastest to read.
                hidden = file.create_dataset("hidden_states", (*rows.shape, values.shape[-1]), dtype)
            hidden[first : first + len(values)] = values
        file["tokens"] = rows
        for name, value in attributes.items():
            file.attrs[name] = value
    os.replace(part, out)


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
    if start is None:
        raise SystemExit("the tokenizer has neither a bos nor an eos token to begin documents with")
    attributes = {"start_token": start, "model": args.model, "tensor": f"hidden_states[{args.layer}]"}
    if os.path.isdir(args.model):
        attributes |= located("model", args.model, args.out)
    folder = f"{args.out}.tokenizer"
    tokenizer.save_pretrained(folder)
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        attributes |= located("tokenizer", os.path.join(folder, "tokenizer.json"), args.out)

    def documents():
        with open(args.text, encoding="utf-8") as f:
            for text in f.read().split("\n\n"):
                if text.strip():
                    yield tokenizer(text, add_special_tokens=False)["input_ids"]

    def forward(ids):
        return model(input_ids=ids.to(device), output_hidden_states=True).hidden_states[args.layer]

    rows = list(contexts(documents(), start, args.context))
    harvest(forward, rows, args.out, attributes, args.dtype, args.batch)
    print(f"{args.out}: {len(rows)} contexts of {args.context} tokens")


if __name__ == "__main__":
    main()
