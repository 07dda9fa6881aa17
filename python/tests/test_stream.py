"""Rows from Python to the command, which fake_saetta.py stands in for."""

import array
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

import saetta
from saetta import stream

try:
    import numpy
except ImportError:
    numpy = None
try:
    import torch
except ImportError:
    torch = None

HERE = os.path.dirname(os.path.abspath(__file__))
FAKE = f"{sys.executable} {os.path.join(HERE, 'fake_saetta.py')}"
NEEDS_TORCH = unittest.skipIf(torch is None, "torch is not there")
NEEDS_NUMPY = unittest.skipIf(numpy is None, "numpy is not there")


def floats(count, width, start=0):
    """A buffer [count, width] of ascending float32."""
    values = array.array("f", range(start, start + count * width))
    return memoryview(values).cast("B").cast("f", [count, width])


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition):
    """Waits; the limit ends what hangs and nothing else."""
    end = time.monotonic() + 240
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it does not become true")
        time.sleep(0.02)


class Streams(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = os.path.join(folder.name, "run")
        environment = mock.patch.dict(os.environ, {"SAETTA": FAKE})
        environment.start()
        self.addCleanup(environment.stop)

    def behave(self, how):
        os.environ["FAKE"] = how

    def received(self):
        with open(os.path.join(self.out, "received.json")) as file:
            return json.load(file)

    def sent(self, data, **options):
        saetta.train(data, out=self.out, **options).wait()
        return self.received()

    def test_buffers_arrive_byte_for_byte_with_the_options_as_flags(self):
        got = self.sent(iter([floats(3, 2), floats(2, 2, 6)]), latents=64, tensorboard=True, shuffle=False, prefixes=[4, 8], lr=-1)
        self.assertEqual(got["header"], {"width": 2, "dtype": "f32"})
        self.assertEqual([frame["rows"] for frame in got["frames"]], [3, 2])
        self.assertEqual("".join(frame["values"] for frame in got["frames"]), struct.pack("<10f", *range(10)).hex())
        flags = ["--latents", "64", "--tensorboard", "--no-shuffle", "--prefixes", "4,8", "--lr=-1"]
        self.assertEqual(got["words"], ["train", "-", *flags, "--out", self.out, "--json"])

    def test_tokens_and_masks_of_tuples_and_dicts(self):
        items = [
            (floats(2, 3), [5, 6], [True, False]),
            {"hidden_states": floats(2, 3), "input_ids": array.array("q", [7, 8]), "attention_mask": [1, 0]},
        ]
        got = self.sent(iter(items))
        self.assertEqual(got["header"], {"width": 3, "dtype": "f32", "tokens": True, "mask": True})
        self.assertEqual([frame["tokens"] for frame in got["frames"]], [[5, 6], [7, 8]])
        self.assertEqual([frame["mask"] for frame in got["frames"]], [[1, 0], [1, 0]])

    def test_three_axes_are_contexts_and_data_that_is_there_says_its_rows(self):
        values = memoryview(array.array("f", range(24))).cast("B").cast("f", [2, 4, 3])
        with mock.patch.object(stream, "MOST_PAYLOAD", 50):  # one context per frame
            got = self.sent([values, values])
        self.assertEqual(got["header"], {"width": 3, "dtype": "f32", "context": 4, "rows": 16})
        self.assertEqual([frame["rows"] for frame in got["frames"]], [4, 4, 4, 4])
        whole = struct.pack("<24f", *range(24)).hex()
        self.assertEqual("".join(frame["values"] for frame in got["frames"]), whole * 2)

    def test_an_iterable_says_where_its_rows_are_from(self):
        class Rows:
            about = {"model": "tiny", "tensor": None, "start_token": 0}

            def __iter__(self):
                yield (floats(2, 2), [0, 1])

        right = {"width": 2, "dtype": "f32", "tokens": True, "model": "tiny", "start_token": 0}
        self.assertEqual(self.sent(Rows())["header"], right)

    def test_an_item_is_written_before_the_next_is_asked_for(self):
        def reusing():
            values = array.array("f", [0, 0])
            for i in range(50):
                values[0] = values[1] = i
                yield memoryview(values).cast("B").cast("f", [1, 2])

        got = self.sent(reusing())
        self.assertEqual([frame["values"] for frame in got["frames"]], [struct.pack("<2f", i, i).hex() for i in range(50)])

    def test_a_full_pipe_holds_the_iterator_back(self):
        self.behave("slow")
        pulled = []

        def endless():
            for i in range(40):
                pulled.append(i)
                yield floats(2**18, 1)  # 1 MiB, as much as the pipe holds

        run = saetta.train(endless(), out=self.out)
        until(lambda: len(pulled) > 1)
        time.sleep(0.3)
        self.assertLess(len(pulled), 6)
        open(os.path.join(self.out, "go"), "w").close()
        run.wait()
        self.assertEqual(len(pulled), 40)

    def test_all_calls_of_the_iterator_are_in_one_thread_and_it_is_closed(self):
        threads, closed = [], []

        def rows():
            try:
                for _ in range(3):
                    threads.append(threading.get_ident())
                    yield floats(1, 2)
            finally:
                closed.append(threading.get_ident())

        self.behave("short")
        saetta.train(rows(), out=self.out).wait()
        until(lambda: closed)
        self.assertEqual(len(set(threads + closed)), 1)

    def test_steps_are_followed_to_the_end_and_a_run_that_ends_early_is_no_error(self):
        self.behave("short")
        run = saetta.train((floats(2, 2) for _ in range(10**9)), out=self.out)
        steps = list(run)
        self.assertEqual([step.fvu for step in steps], [0.5, 0.25])
        self.assertNotEqual(steps[0].grad_norm, steps[0].grad_norm)  # NaN
        self.assertIsNone(steps[0].get("holdout_fvu"))
        with self.assertRaisesRegex(AttributeError, "there is no holdout_fvu here; there is step, fvu, grad_norm"):
            steps[0].holdout_fvu
        self.assertEqual((run.path, run.running, run.result.reason), (self.out, False, "done"))
        self.assertEqual([step.step for step in run], [1, 2])

    def test_what_the_iterator_raises_ends_the_run_and_is_raised_again(self):
        def broken():
            yield floats(1, 2)
            raise ZeroDivisionError("of the user")

        run = saetta.train(broken(), out=self.out)
        for act in (run.wait, lambda: list(run)):
            with self.assertRaisesRegex(ZeroDivisionError, "of the user"):
                act()
        self.assertFalse(run.running)
        self.assertIn("cut off", run._said[-1])

    def test_items_that_are_not_like_the_first_or_no_rows_are_refused(self):
        good = floats(2, 2)
        cases = [
            ([good, floats(2, 3)], "item 1 has width 3, but the first has 2"),
            ([good, good, (good, [1, 2])], "item 2 has tokens, unlike the first"),
            ([(good, [1, 2]), good], "item 1 has no tokens, unlike the first"),
            ([good, memoryview(array.array("f", range(8))).cast("B").cast("f", [2, 2, 2])], "item 1 has context 2, but the first has None"),
            ([(good, [1])], "tokens must be one per row, but are 1 for 2 rows"),
            ([(good, [0.5, 1])], "tokens must be whole numbers"),
            ([(good, [2**31, 1])], "tokens must be below 2"),
            ([{"activations": good, "colour": 1}], "'colour' is no part of the rows"),
            ([{"tokens": [1]}], "a dict of rows has no activations"),
            ([{"acts": good, "x": good}], "has both acts and x"),
            ([memoryview(array.array("f", [1, 2]))], r"must be \[rows, width\]"),
            ([memoryview(array.array("i", [1, 2])).cast("B").cast("i", [1, 2])], "its format is 'i'"),
            (["text", 1], "rows must be tensors, arrays or buffers, but one is of type str"),
            ([], "the iterable yielded no rows"),
        ]
        for i, (items, message) in enumerate(cases):
            with self.subTest(message), self.assertRaisesRegex(saetta.UsageError, message):
                saetta.train(iter(items), out=f"{self.out}-{i}").wait()
        with self.assertRaisesRegex(saetta.UsageError, "an iterable of rows or a path, not int"):
            saetta.train(5, out=self.out)

    def test_errors_of_the_command_have_its_words(self):
        with self.assertRaises(saetta.UsageError) as caught:
            saetta.train([floats(1, 2)], out=self.out, bogus=1)
        self.assertEqual(str(caught.exception), "unknown option '--bogus'; saetta train --help tells more")
        with mock.patch.dict(os.environ, {"SAETTA": "/no/such/command"}):
            with self.assertRaisesRegex(saetta.Error, "/no/such/command: cannot be started"):
                saetta.train([floats(1, 2)], out=self.out)

    def test_stop_ends_the_run_with_its_result(self):
        self.behave("hang")
        with saetta.train((floats(1, 2) for _ in range(10**9)), out=self.out) as run:
            self.assertTrue(run.running)
            self.assertEqual(run.stop().reason, "stopped")
        self.assertFalse(run.running)

    def start_python(self, then):
        """Another Python that trains and then does `then`; returns it and the pid of its command."""
        self.behave("hang")
        pid_file = os.path.join(self.out, "pid")
        # A command that is ended before it runs leaves no pid.
        code = f"""import saetta, os, signal, time
run = saetta.train((memoryview(bytes(8)).cast('f', [1, 2]) for _ in range(10**9)), out={self.out!r})
while not (os.path.exists({pid_file!r}) and os.path.getsize({pid_file!r}) > 0): time.sleep(0.02)
{then}"""
        python = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.path.dirname(HERE)})
        until(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file) > 0)
        with open(pid_file) as file:
            return python, int(file.read())

    def test_a_killed_interpreter_leaves_no_process_and_an_ended_one_stops_its_runs(self):
        for i, then in enumerate(["os.kill(os.getpid(), signal.SIGKILL)", "pass", "raise SystemExit(3)"]):
            self.out = f"{self.out}{i}"
            python, pid = self.start_python(then)
            self.assertEqual(python.wait(), [-signal.SIGKILL, 0, 3][i])
            until(lambda: not is_there(pid))
            until(lambda: os.path.exists(os.path.join(self.out, "received.json")))  # it saw SIGTERM

    @NEEDS_NUMPY
    def test_arrays(self):
        half = numpy.arange(6, dtype=numpy.float16).reshape(3, 2)
        got = self.sent(iter([(half, numpy.arange(3)), (numpy.asfortranarray(half), numpy.arange(3, dtype=numpy.uint8))]))
        self.assertEqual(got["header"], {"width": 2, "dtype": "f16", "tokens": True})
        self.assertEqual([frame["values"] for frame in got["frames"]], [half.tobytes().hex()] * 2)
        self.assertEqual([frame["tokens"] for frame in got["frames"]], [[0, 1, 2]] * 2)

    @NEEDS_NUMPY
    def test_arrays_of_double_and_of_the_other_byte_order_become_float32(self):
        values = numpy.arange(4, dtype=numpy.float64).reshape(2, 2)
        got = self.sent(iter([values, values.astype(">f4"), values.astype(">f8"), values.astype("<f4")[::-1]]))
        right = struct.pack("<4f", 0, 1, 2, 3).hex()
        self.assertEqual([frame["values"] for frame in got["frames"]], [right] * 3 + [struct.pack("<4f", 2, 3, 0, 1).hex()])

    @NEEDS_TORCH
    def test_tensors(self):
        values = torch.arange(12.0).reshape(2, 3, 2).bfloat16()
        ids, mask = torch.arange(6).reshape(2, 3), torch.tensor([[1, 1, 0], [1, 0, 0]])
        got = self.sent({"activations": values.requires_grad_(), "tokens": ids, "mask": mask})
        self.assertEqual(got["header"], {"width": 2, "dtype": "bf16", "context": 3, "tokens": True, "mask": True, "rows": 6})
        (frame,) = got["frames"]
        bits = values.detach().view(torch.int16).flatten().tolist()
        self.assertEqual(frame["values"], struct.pack("<12h", *bits).hex())
        self.assertEqual((frame["tokens"], frame["mask"]), ([0, 1, 2, 3, 4, 5], [1, 1, 0, 1, 0, 0]))

    @NEEDS_TORCH
    def test_tensors_that_are_not_contiguous_double_or_without_rows(self):
        values = torch.arange(4.0).reshape(2, 2)
        got = self.sent(iter([values.T, torch.empty(0, 2), values.double(), values]))
        ordered = struct.pack("<4f", 0, 1, 2, 3).hex()
        self.assertEqual([frame["values"] for frame in got["frames"]], [struct.pack("<4f", 0, 2, 1, 3).hex(), ordered, ordered])
        with self.assertRaisesRegex(saetta.UsageError, "activations must be float16, .* but are int64"):
            saetta.train(torch.ones(2, 2).long(), out=f"{self.out}-2")

    @NEEDS_TORCH
    def test_frames_of_a_card_go_through_two_buffers_in_turn_in_a_side_stream(self):
        calls = []

        class Stand:
            """A stream or an event that notes its calls."""

            def __getattr__(self, name):
                return lambda *others: calls.append(name)

        class OfCard(torch.Tensor):
            is_cuda = True

        def on_card(values):
            return values.as_subclass(OfCard)

        empty, buffers = torch.empty, []

        def pinned(size, dtype, pin_memory):
            self.assertTrue(pin_memory)
            buffers.append(empty(size, dtype=dtype))
            return buffers[-1]

        patches = {"Stream": lambda device: Stand(), "Event": Stand, "current_stream": lambda device: Stand()}
        patches["stream"] = lambda side: contextlib.nullcontext()
        with mock.patch.multiple(torch.cuda, **patches), mock.patch.object(torch, "empty", pinned), mock.patch.object(
            OfCard, "record_stream", lambda *_: calls.append("record_stream"), create=True
        ):
            values = torch.arange(24.0).reshape(6, 4)
            items = [(on_card(values + i), torch.arange(6), on_card(torch.ones(6))) for i in range(5)]
            got = self.sent(iter(items))
        self.assertEqual([frame["values"] for frame in got["frames"]], [(values + i).numpy().tobytes().hex() for i in range(5)])
        self.assertEqual([frame["tokens"] for frame in got["frames"]], [list(range(6))] * 5)
        self.assertEqual([frame["mask"] for frame in got["frames"]], [[1] * 6] * 5)
        self.assertEqual(len(buffers), 2)
        pulled = [name for name in calls if name != "synchronize"]
        self.assertEqual(pulled[:5], ["wait_stream", "record_stream", "record_stream", "record", "wait_event"])
        self.assertEqual(calls.count("synchronize"), 5)


if __name__ == "__main__":
    unittest.main()
