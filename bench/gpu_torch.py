"""What a card can do, in PyTorch: a copy within its memory, and the encoder's plain product. Prints one line of JSON. Usage: gpu_torch.py B N D"""

import json
import sys

import torch


def seconds(run, repeats=20):
    for _ in range(3):
        run()
    times = []
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / repeats / 1000)
    return sorted(times)[2]


def main():
    rows, n, d = (int(word) for word in sys.argv[1:4])
    torch.backends.cuda.matmul.allow_tf32 = False
    found = {"card": torch.cuda.get_device_name(0), "torch": torch.__version__}
    a = torch.randn(2**28, device="cuda")
    b = torch.empty_like(a)
    found["copy_gbs"] = round(2 * a.numel() * 4 / seconds(lambda: b.copy_(a)) / 1e9)
    del a, b
    for name, dtype in [("bf16", torch.bfloat16), ("fp16", torch.float16), ("f32", torch.float32)]:
        x, w = torch.randn(rows, d, device="cuda", dtype=dtype), torch.randn(n, d, device="cuda", dtype=dtype)
        out = torch.empty(rows, n, device="cuda", dtype=dtype)
        found["product_" + name] = round(2 * rows * n * d / seconds(lambda: torch.mm(x, w.T, out=out), 10) / 1e12, 1)
        del x, w, out
    print(json.dumps(found))


main()
