"""The codes of a threshold autoencoder (JumpReLU) in plain PyTorch on the CPU, for encode.mjs. Says on stdout, as one line of JSON, what it runs on; then answers each line on stdin with one
line: "encode ROWS": x @ W_enc, compared with the thresholds, and what is above them as indices and values; "reconstruct ROWS": that, and the reconstruction; with "oneDNN" at the end the
same with the products of oneDNN, which PyTorch uses for layers that are converted. Usage: encode_torch.py FOLDER ROWS D N THREADS, of the files that encode.mjs writes there
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from step_torch import blas
from torch.utils.mkldnn import to_mkldnn


def main():
    folder = sys.argv[1]
    rows, d, n, threads = (int(word) for word in sys.argv[2:6])
    torch.set_num_threads(threads)
    floats = lambda name, *shape: torch.from_numpy(np.fromfile(f"{folder}/{name}", np.float32).reshape(shape))
    encoder, decoder, threshold, bias = floats("encoder.f32", d, n), floats("decoder.f32", n, d), floats("threshold.f32", n), floats("bias.f32", d)
    x16 = torch.from_numpy(np.fromfile(f"{folder}/rows.f16", np.float16, rows * d).reshape(rows, d))

    def converted(weight, shift):
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = weight.T.contiguous(), shift
        return to_mkldnn(layer)

    encode_layer, decode_layer = converted(encoder, torch.zeros(n)), converted(decoder, bias)

    @torch.no_grad()
    def one(reconstruct, onednn, rows16):
        x = rows16.float() - bias
        pre = encode_layer(x.to_mkldnn()).to_dense() if onednn else x @ encoder
        active = pre > threshold
        places = active.nonzero()
        values = pre[active]
        if reconstruct:
            codes = pre * active
            output = decode_layer(codes.to_mkldnn()).to_dense() if onednn else codes @ decoder + bias
            (output - rows16.float()).pow(2).sum().item()
        return len(places), values

    print(json.dumps(dict(name=f"PyTorch {torch.__version__}", blas=blas(), threads=torch.get_num_threads())), flush=True)
    for line in sys.stdin:
        words = line.split()
        rows16 = x16[: int(words[1])]
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        codes, _ = one(words[0] == "reconstruct", "oneDNN" in words, rows16)
        ms = 1000 * (time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps(dict(ms=ms, cpu_ms=1000 * cpu, l0=codes / len(rows16))), flush=True)


if __name__ == "__main__":
    main()
