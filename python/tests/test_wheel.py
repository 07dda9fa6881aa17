"""The wheel: its files are as its RECORD says, and it can be imported."""

import base64
import csv
import glob
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
import zipfile

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Wheels(unittest.TestCase):
    def test_holds_the_package_and_what_installers_want(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, os.path.join(PACKAGE, "scripts", "build_wheel.py"), folder], check=True, capture_output=True)
            (path,) = glob.glob(os.path.join(folder, "saetta-*-py3-none-any.whl"))
            with zipfile.ZipFile(path) as wheel:
                names = wheel.namelist()
                (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
                for name, digest, size in csv.reader(io.StringIO(wheel.read(record).decode())):
                    if name != record:
                        data = wheel.read(name)
                        right = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                        self.assertEqual((digest, int(size)), (f"sha256={right}", len(data)), name)
                    names.remove(name)
                self.assertEqual(names, [])
            code = "import saetta; print(saetta.__file__); saetta.train; saetta.UsageError"
            done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"], check=True, capture_output=True, text=True)
            self.assertEqual(done.stdout.strip(), os.path.join(path, "saetta", "__init__.py"))


if __name__ == "__main__":
    unittest.main()
