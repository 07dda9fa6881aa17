"""The losses of `saetta eval --loss` in plain PyTorch on the CPU, for loss.mjs: of the model as it is, of noise in the place of a reconstruction, of zeros and of the mean. Says on stdout, as
one line of JSON, what it runs on; then for each line "f32" or "f64" (what log_softmax and the sums are in) on stdin it takes two contexts and answers with one line.
Usage: loss_torch.py TABLE IDS VOCABULARY WIDTH CONTEXT THREADS
"""

import json
import resource
import sys
import time

import numpy as np
import torch

CONTEXTS = 2


def main():
    vocabulary, width, context, threads = (int(word) for word in sys.argv[3:7])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    table = torch.from_numpy(np.fromfile(sys.argv[1], np.float32).reshape(vocabulary, width))
    ids = torch.from_numpy(np.fromfile(sys.argv[2], np.int32).astype(np.int64).reshape(-1, context))
    # What is timed is the losses alone: the products depend on the BLAS that PyTorch was built with.
    hidden = 2 * table[ids[:CONTEXTS]]
    places = [hidden, hidden + 0.1 * torch.randn_like(hidden), torch.zeros_like(hidden), (2 * table[ids]).mean((0, 1)).expand_as(hidden)]
    logits = [(place @ table.T)[:, :-1].reshape(-1, vocabulary) for place in places]
    following = ids[:CONTEXTS, 1:].reshape(-1, 1)

    def losses(dtype):
        own = torch.log_softmax(logits[0].to(dtype), -1)
        found = [-own.gather(1, following).mean().item()]
        for other in logits[1:]:
            predicted = torch.log_softmax(other.to(dtype), -1)
            found.append(-predicted.gather(1, following).mean().item())
            (own.exp() * (own - predicted)).sum(-1).mean().item()
        return found

    print(json.dumps(dict(name=f"PyTorch {torch.__version__}", threads=torch.get_num_threads(), rows=CONTEXTS * context)), flush=True)
    for line in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        found = losses(torch.float64 if line.strip() == "f64" else torch.float32)
        ms = 1000 * (time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps(dict(ms=ms, cpu_ms=1000 * cpu, cross_entropy=found)), flush=True)


if __name__ == "__main__":
    main()
