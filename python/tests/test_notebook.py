"""examples/notebook/saetta.ipynb: its outputs are there, name no folder of a machine, and its code runs."""

import contextlib
import io
import json
import os
import tempfile
import unittest

try:
    import torch
except ImportError:
    torch = None

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOTEBOOK = os.path.join(PACKAGE, "examples", "notebook", "saetta.ipynb")


class Notebooks(unittest.TestCase):
    def setUp(self):
        with open(NOTEBOOK, encoding="utf-8") as file:
            self.text = file.read()
        self.cells = [cell for cell in json.loads(self.text)["cells"] if cell["cell_type"] == "code"]

    def test_was_run(self):
        self.assertEqual([cell["execution_count"] for cell in self.cells], list(range(1, len(self.cells) + 1)))
        self.assertIn("features.html", json.dumps(self.cells[3]["outputs"]))
        self.assertNotRegex(self.text, r"/(tmp|home|root|work|usr)/|Traceback")

    @unittest.skipIf(torch is None, "torch is not there")
    def test_its_code_runs(self):
        before, out, names = os.getcwd(), io.StringIO(), {}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(out):
            os.chdir(folder)
            try:
                for cell in self.cells:
                    exec("".join(cell["source"]), names)
                self.assertTrue(os.path.exists("features.html"))
            finally:
                os.chdir(before)
        self.assertRegex(out.getvalue(), r"FVU 0\.\d+ on new rows; \d+ of 128 directions found")
        self.assertRegex(out.getvalue(), r"done \d+ rows\n--k 512 is more than the 256 latents")


if __name__ == "__main__":
    unittest.main()
