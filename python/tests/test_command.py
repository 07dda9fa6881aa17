"""The package with the command itself, on files."""

import array
import json
import os
import random
import sys
import tempfile
import unittest
from unittest import mock

import saetta
from saetta.command import command, output_of

try:
    import torch
except ImportError:
    torch = None

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(os.path.dirname(HERE))


def write_npy(path, rows, width):
    """Random sums of two of 16 fixed directions, float32 [rows, width]."""
    draw = random.Random(1)
    directions = [[draw.gauss(0, 1) for _ in range(width)] for _ in range(16)]
    values = array.array("f")
    for _ in range(rows):
        a, b = draw.sample(directions, 2)
        u, v = draw.random(), draw.random()
        values.extend(u * x + v * y for x, y in zip(a, b))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}".ljust(117) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values.tobytes())


class Commands(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def test_is_found_in_the_environment_on_path_and_in_the_package(self):
        script = self.path("saetta")
        with open(script, "w") as file:
            file.write("#!/bin/sh\n")
        os.chmod(script, 0o755)
        with mock.patch.dict(os.environ, {"SAETTA": "node 'a b/cli.js'", "PATH": self.folder}):
            self.assertEqual(command(), ["node", "a b/cli.js"])
            os.environ["SAETTA"] = script
            self.assertEqual(command(), [script])
            del os.environ["SAETTA"]
            self.assertEqual(command(), [script])
            os.remove(script)
            self.assertEqual(command(), ["node", os.path.join(PACKAGE, "dist", "cli.js")])
            with mock.patch("os.path.exists", lambda path: False):
                with self.assertRaisesRegex(saetta.Error, "not on PATH; npm install saetta, or set SAETTA"):
                    command()

    def test_trains_on_files_reports_and_says_what_is_wrong(self):
        write_npy(self.path("acts.npy"), 2000, 8)
        run = saetta.train(self.path("acts.npy"), out=self.path("run"), latents=32, k=2, batch=100, log_every=1)
        steps = list(run)
        self.assertEqual([step.step for step in steps], list(range(1, 20)))
        self.assertLess(steps[-1].fvu, steps[0].fvu)
        self.assertEqual((run.result.reason, run.result.steps, run.result.run), ("done", 19, run.path))
        page = run.report(self.path("features.html"), data=[self.path("acts.npy")])
        self.assertEqual(page, self.path("features.html"))
        with open(page) as file:
            self.assertIn("<html", file.read())
        with self.assertRaisesRegex(saetta.Error, "features.html: exists already"):
            run.report(page)

        def contexts(start):
            return memoryview(array.array("f", range(start, start + 2 * 5 * 8))).cast("B").cast("f", [2, 5, 8])

        run.report(page, data=map(contexts, range(10**9)), rows=40, force=True)
        with open(page) as file:
            self.assertIn("<html", file.read())
        if torch is not None:
            sae = saetta.load(run.path)
            self.assertEqual((sae.latents, sae.width, sae.k, sae.architecture), (32, 8, 2, "topk"))
            self.assertEqual(sae(torch.zeros(3, 5, 8)).shape, (3, 5, 8))
            self.assertEqual(set(sae.state_dict()), {"encoder.weight", "encoder.bias", "W_dec", "b_dec"})
        with self.assertRaisesRegex(saetta.Error, "run: "):  # the folder is taken
            saetta.train(self.path("acts.npy"), out=run.path, latents=32, k=2)
        items = ((contexts(i), range(10), [1] * 9 + [0]) for i in range(100))
        folder = saetta.save(items, self.path("saved"), rows=25)
        self.assertEqual(sorted(os.listdir(folder)), [f"rows-{i:06d}.safetensors" for i in range(3)])
        about = json.loads(output_of(["inspect", folder, "--json"]))["facts"]["activations"]
        self.assertEqual([about[name] for name in ("rows", "width", "sequence", "sampled_rows")], [30, 8, 5, 27])
        with self.assertRaisesRegex(saetta.UsageError, "saved: the folder is not empty; choose another"):
            saetta.save(contexts(0), folder)
        wrong = [
            ({"bogus": 1}, saetta.UsageError, "unknown option '--bogus';"),
            ({"latents": "many"}, saetta.UsageError, "^--latents must be a whole number"),
            ({"k": 64, "latents": 32}, saetta.UsageError, "^--k 64 is more than the 32 latents; lower"),
        ]
        for options, kind, message in wrong:
            with self.subTest(options), self.assertRaisesRegex(kind, message):
                saetta.train(self.path("acts.npy"), out=self.path("never"), **options)
        with self.assertRaisesRegex(saetta.Error, "gone.npy: no such file"):
            saetta.train(self.path("gone.npy"), out=self.path("never"))
        self.assertFalse(os.path.exists(self.path("never")))

    def test_trains_on_rows_as_they_come_and_an_error_of_theirs_leaves_a_checkpoint(self):
        def rows(error_after=10**9):
            draw = random.Random(1)
            directions = [[draw.gauss(0, 1) for _ in range(8)] for _ in range(16)]
            for i in range(10**9):
                if i == error_after:
                    raise ZeroDivisionError("of the user")
                values = array.array("f", (draw.random() * each for _ in range(100) for each in draw.choice(directions)))
                yield memoryview(values).cast("B").cast("f", [100, 8])

        options = {"latents": 32, "k": 2, "batch": 100, "log_every": 1, "tokens": 5000}
        run = saetta.train(rows(), out=self.path("run"), **options)
        steps = list(run)
        self.assertEqual((len(steps), run.result.reason), (50, "done"))
        self.assertLess(steps[-1].fvu, steps[0].fvu)
        broken = saetta.train(rows(error_after=20), out=self.path("broken"), **options)
        with self.assertRaisesRegex(ZeroDivisionError, "of the user"):
            broken.wait()
        self.assertNotEqual(os.listdir(self.path("broken/checkpoints")), [])
        with self.assertRaisesRegex(saetta.UsageError, "nothing says how many rows to train on; give --tokens"):
            saetta.train(rows(), out=self.path("never"), latents=32, k=2)


@unittest.skipIf(torch is None, "torch is not there")
class Loading(unittest.TestCase):
    def test_says_why_not(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(saetta.Error, "holds no autoencoder of Saetta; saetta import"):
                saetta.load(folder)
            with self.assertRaisesRegex(saetta.Error, "gone: there is no such folder"):
                saetta.load(os.path.join(folder, "gone"))
            os.mkdir(os.path.join(folder, "checkpoints"))
            with open(os.path.join(folder, "metrics.jsonl"), "w"):
                pass
            with self.assertRaisesRegex(saetta.Error, "the run has no checkpoint yet"):
                saetta.load(folder)
            with open(os.path.join(folder, "cfg.json"), "w") as file:
                file.write("{}")
            with self.assertRaisesRegex(saetta.Error, "holds no weights"):
                saetta.load(folder)
            with open(os.path.join(folder, "sae.safetensors"), "wb") as file:
                file.write(b"\x02\0\0\0\0\0\0\0{}")
            with self.assertRaisesRegex(saetta.Error, "holds no encoder.weight"):
                saetta.load(folder)
            with open(os.path.join(folder, "sae.safetensors"), "wb") as file:
                file.write(b"\x10\0\0\0\0\0\0\0{")
            with self.assertRaisesRegex(saetta.Error, "sae.safetensors: is no safetensors file of floats, or cut off"):
                saetta.load(folder)


if __name__ == "__main__":
    unittest.main()
