"""Writes saetta-VERSION-py3-none-any.whl from python/saetta into dist/ (or a folder given): `npm run build:wheel`. The version is package.json's.

The format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/. The same files give the same bytes.
"""

import base64
import hashlib
import json
import os
import sys
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def contents():
    """What the wheel holds: bytes by name, the package first."""
    with open(os.path.join(ROOT, "package.json"), encoding="utf-8") as file:
        package = json.load(file)
    version = package["version"]
    info = f"saetta-{version}.dist-info"
    folder = os.path.join(ROOT, "python", "saetta")
    files = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py") or name == "py.typed":
            with open(os.path.join(folder, name), "rb") as file:
                files[f"saetta/{name}"] = file.read()
    with open(os.path.join(ROOT, "LICENSE"), "rb") as file:
        files[f"{info}/licenses/LICENSE"] = file.read()
    metadata = [
        "Metadata-Version: 2.1",
        "Name: saetta",
        f"Version: {version}",
        f"Summary: {package['description']}",
        f"License: {package['license']}",
        "Requires-Python: >=3.9",
    ]
    files[f"{info}/METADATA"] = "\n".join(metadata).encode() + b"\n"
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: saetta\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = f"{info}/RECORD"
    lines = [f"{name},{digest(data)},{len(data)}" for name, data in files.items()]
    files[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode()
    return version, files


def digest(data):
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    version, files = contents()
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "dist")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"saetta-{version}-py3-none-any.whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # of 1980, readable by all
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, data, zipfile.ZIP_DEFLATED)
    print(os.path.relpath(path))
