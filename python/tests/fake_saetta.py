"""Stands in for the command in the tests: reads rows from standard input and answers as `saetta train -` does.

FAKE says how it behaves: "train" reads all, "slow" waits for a file `go` in the run folder before it reads the frames,
"short" ends well after the first frame, "hang" neither reads nor ends. What it read is in received.json in the run folder.
"""

import json
import os
import signal
import struct
import sys
import time

SIZES = {"f16": 2, "bf16": 2, "f32": 4}


def fail(message, code=1):
    print(f"saetta: note: something worth knowing\nsaetta: {message}", file=sys.stderr)
    sys.exit(code)


def exactly(file, count):
    data = file.read(count)
    if len(data) < count:
        fail("standard input: the rows were cut off")
    return data


def main():
    words = sys.argv[1:]
    if any(word == "--bogus" for word in words):
        fail("unknown option '--bogus'; saetta train --help tells more", 2)
    out = words[words.index("--out") + 1]
    how = os.environ.get("FAKE", "train")
    stdin = sys.stdin.buffer
    received = {"words": words, "frames": []}
    if how == "hang":  # before anything says that it trains
        signal.signal(signal.SIGTERM, lambda *_: finish(out, received, "stopped", 143))
    os.makedirs(out)
    log = open(os.path.join(out, "metrics.jsonl"), "w")
    log.write('{"step": 1, "fvu": 0.5, "grad_norm": null}\n')
    log.flush()
    with open(os.path.join(out, "pid"), "w") as file:
        file.write(str(os.getpid()))
    while how == "hang":
        time.sleep(0.05)
    if words[1] == "-":
        assert exactly(stdin, 8) == b"SAETTA\x01\n"
        (length,) = struct.unpack("<I", exactly(stdin, 4))
        header = received["header"] = json.loads(exactly(stdin, length))
        while how == "slow" and not os.path.exists(os.path.join(out, "go")):
            time.sleep(0.01)
        while True:
            rows, size = struct.unpack("<II", exactly(stdin, 8))
            if rows == 0:
                break
            payload = exactly(stdin, size)
            at, frame = 0, {"rows": rows}
            if header.get("tokens"):
                frame["tokens"] = list(struct.unpack(f"<{rows}i", payload[: 4 * rows]))
                at += 4 * rows
            if header.get("mask"):
                frame["mask"] = list(payload[at : at + rows])
                at += rows
            frame["values"] = payload[at:].hex()
            assert at + rows * header["width"] * SIZES[header["dtype"]] == size
            received["frames"].append(frame)
            if how == "short":
                break
    log.write('{"step": 2, "fvu": 0.25}\n')
    log.close()
    finish(out, received, "done", 0)


def finish(out, received, reason, code):
    with open(os.path.join(out, "received.json"), "w") as file:
        json.dump(received, file)
    print(json.dumps({"run": out, "reason": reason, "steps": 2, "tokens": 10}), flush=True)
    os._exit(code)


main()
