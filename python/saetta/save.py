"""Rows of an iterable as files that every command of Saetta reads."""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, List, Optional, Tuple, Union

from .errors import UsageError
from .rows import Chunk, chunk_of, is_item, is_on_card, memory_of
from .stream import Header, header_of

_DTYPES = {"f16": "F16", "bf16": "BF16", "f32": "F32"}


def save(data: Any, folder: Union[str, "os.PathLike[str]"], *, rows: Optional[int] = None) -> str:
    """Writes rows as safetensors files into `folder`, one per item; returns the folder.

    data: as for `train`. rows: stop once there are so many; default: all. The folder must be empty or
    not there. Throws UsageError, and what the iterable raises.
    """
    path = os.fspath(folder)
    os.makedirs(path, exist_ok=True)
    if os.listdir(path):
        raise UsageError(f"{path}: the folder is not empty; choose another")
    about = {name: str(value) for name, value in getattr(data, "about", {}).items() if value is not None}
    header: Optional[Header] = None
    saved = 0
    for index, item in enumerate([data] if is_item(data) else data):
        chunk = chunk_of(item)
        header = header or header_of(chunk)
        header.check(chunk, index)
        if chunk.rows > 0:
            _write(os.path.join(path, f"rows-{index:06d}.safetensors"), chunk, about)
        saved += chunk.rows
        if rows is not None and saved >= rows:
            break
    if saved == 0:
        raise UsageError("the iterable yielded no rows")
    return path


def _write(path: str, chunk: Chunk, about: Dict[str, str]) -> None:
    each = [chunk.rows] if chunk.context is None else [chunk.rows // chunk.context, chunk.context]
    tensors: List[Tuple[str, str, List[int], Any]] = [
        ("hidden_states", _DTYPES[chunk.dtype], [*each, chunk.width], chunk.values),
        ("tokens", "I32", each, chunk.tokens),
        ("mask", "U8", each, chunk.mask),
    ]
    header: Dict[str, Any] = {"__metadata__": about} if about else {}
    blobs, kept, at = [], [], 0
    for name, dtype, shape, values in tensors:
        if values is None:
            continue
        values = values.cpu() if is_on_card(values) else values  # named: the memory is the tensor's
        kept.append(values)
        blob = memory_of(values)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + blob.nbytes]}
        blobs.append(blob)
        at += blob.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            file.write(blob)
