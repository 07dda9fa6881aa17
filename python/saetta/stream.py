"""Rows on the standard input of `saetta train -`: a header, frames, an end mark. docs/guides/streams.md
has the format.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import sys
import threading
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .errors import UsageError
from .rows import SIZES, Chunk, chunk_of, is_item, is_on_card, memory_of

MAGIC = b"SAETTA\x01\n"
#: Bytes of a frame's payload, at most; an item that is larger becomes several frames.
MOST_PAYLOAD = 32 * 2**20
MOST_ROWS = 2**24
#: Asked of Linux for the pipe, in bytes; its default of 64 KiB costs a switch of processes each.
PIPE_BYTES = 2**20
_F_SETPIPE_SZ = 1031


class Header(NamedTuple):
    """What the first item says of all: later ones must agree."""

    width: int
    dtype: str
    context: Optional[int]
    tokens: bool
    mask: bool

    def bytes(self, about: Mapping[str, Any]) -> bytes:
        """The stream's first bytes. about: further fields of the header, such as "rows"."""
        all_fields = {**self._asdict(), **about}
        fields = {name: value for name, value in all_fields.items() if value is not None and value is not False}
        text = json.dumps(fields).encode()
        return MAGIC + struct.pack("<I", len(text)) + text

    def check(self, chunk: Chunk, index: int) -> None:
        """Throws UsageError where item `index` is unlike the first."""
        for name, is_now, was in zip(self._fields, header_of(chunk), self):
            if is_now != was:
                words = {"tokens": ("has no tokens", "has tokens"), "mask": ("has no mask", "has a mask")}.get(name)
                if words is not None:
                    raise UsageError(f"item {index} {words[is_now]}, unlike the first; give all of them the same parts")
                raise UsageError(f"item {index} has {name} {is_now}, but the first has {was}")


def header_of(chunk: Chunk) -> Header:
    return Header(chunk.width, chunk.dtype, chunk.context, chunk.tokens is not None, chunk.mask is not None)


def frame_head(rows: int, payload: int) -> bytes:
    return struct.pack("<II", rows, payload)


def rows_in(data: Any) -> Optional[int]:
    """The rows of data that is all there: an item, or a list of them; else None."""
    if is_item(data):
        return chunk_of(data).rows
    return sum(chunk_of(item).rows for item in data) if isinstance(data, list) else None


class RowWriter:
    """Pulls items from an iterable in one thread, and writes them to a pipe in another.

    All calls of the iterator happen in one thread, so that what is bound to threads (torch.no_grad,
    the current CUDA stream) stays in force between items. Items in this machine's memory are
    written before the next one is asked for, without a copy; those of a card are copied to pinned
    memory, two frames in turn, so that the next item is made while the last one is written.
    """

    def __init__(self, data: Any, about: Mapping[str, Any]) -> None:
        """data: an item or an iterable of them (rows.chunk_of); about: for the header."""
        self._data = [data] if is_item(data) else data
        self._about = dict(about)
        #: What the iterable raised, or what was wrong with an item.
        self.error: Optional[BaseException] = None
        self._ready = threading.Event()
        self._attached = threading.Event()
        self._fd: Optional[int] = None
        self._gone = threading.Event()
        #: Set once nothing more will be pulled or written.
        self.ended = threading.Event()
        self._work: "queue.Queue[Optional[_Frame]]" = queue.Queue()
        #: By device.
        self._cards: Dict[Any, _PinnedFrames] = {}
        threading.Thread(target=self._pull, name="saetta-rows", daemon=True).start()

    def wait_first(self) -> None:
        """Waits for the first item. Throws what was wrong with it."""
        while not self._ready.wait(0.1):
            pass
        if self.error is not None:
            raise self.error

    def attach(self, fd: int) -> None:
        """Begins to write to `fd`, which the writer closes."""
        self._fd = fd
        _widen(fd)
        threading.Thread(target=self._write, name="saetta-pipe", daemon=True).start()
        self._attached.set()

    def abandon(self) -> None:
        """Nobody will read: ends the threads when they next look."""
        self._gone.set()
        self._attached.set()

    def _pull(self) -> None:
        items: Any = None
        try:
            try:
                items = iter(self._data)
            except TypeError:
                raise UsageError(
                    f"data must be an iterable of rows or a path, not {type(self._data).__name__}"
                ) from None
            header: Optional[Header] = None
            for index, item in enumerate(items):
                chunk = chunk_of(item)
                if header is None:
                    header = header_of(chunk)
                    self._begin(header)
                header.check(chunk, index)
                self._send(chunk)
                if self._gone.is_set():
                    break
            if header is None:
                raise UsageError("the iterable yielded no rows")
            self._work.put(_Frame([MAGIC_END]))
        except BaseException as error:  # raised again in the thread that waits for the run
            self.error = error
        finally:
            self._work.put(None)
            self._ready.set()
            _close(items)

    def _begin(self, header: Header) -> None:
        self._work.put(_Frame([header.bytes(self._about)]))
        self._ready.set()
        self._attached.wait()

    def _send(self, chunk: Chunk) -> None:
        for part in frames_of(chunk):
            if self._gone.is_set():
                return
            device = next((piece.device for piece in part.parts if is_on_card(piece)), None)
            if device is not None:
                card = self._cards.get(device) or self._cards.setdefault(device, _PinnedFrames(device))
                self._work.put(card.copy(part))
            else:
                frame = _Frame([frame_head(part.rows, part.size), *map(memory_of, part.parts)])
                self._work.put(frame)
                frame.written.wait()

    def _write(self) -> None:
        fd = self._fd
        assert fd is not None
        try:
            while True:
                frame = self._work.get()
                if frame is None:
                    return
                try:
                    if not self._gone.is_set():
                        _write_all(fd, frame.contents())
                except OSError:  # it reads no more: how it ended says why
                    self._gone.set()
                finally:
                    frame.written.set()
        finally:
            os.close(fd)
            self.ended.set()


MAGIC_END = frame_head(0, 0)


class _Frame:
    """Bytes to write, in several pieces."""

    def __init__(self, pieces: List[Any]) -> None:
        self._pieces = pieces
        self.written = threading.Event()

    def contents(self) -> List[memoryview]:
        return [memoryview(piece) for piece in self._pieces]


class Part(NamedTuple):
    """Rows of a chunk that make one frame."""

    rows: int
    #: Bytes of the payload.
    size: int
    #: Tokens and mask where there are any, then values.
    parts: List[Any]


def frames_of(chunk: Chunk) -> Iterator[Part]:
    """Parts of whole contexts, no larger than MOST_PAYLOAD where contexts allow."""
    parts = chunk.parts()
    row_bytes = sum(size for _, size in parts)
    unit = chunk.context or 1
    most = max(1, min(MOST_ROWS, MOST_PAYLOAD // row_bytes) // unit) * unit
    if chunk.rows <= most:
        if chunk.rows > 0:
            yield Part(chunk.rows, chunk.rows * row_bytes, [part for part, _ in parts])
        return
    flat = [_by_rows(part, chunk.rows, size) for part, size in parts]
    for first in range(0, chunk.rows, most):
        rows = min(most, chunk.rows - first)
        sliced = [part[first * unit_size : (first + rows) * unit_size] for part, unit_size in flat]
        yield Part(rows, rows * row_bytes, sliced)


def _by_rows(part: Any, rows: int, row_bytes: int) -> Tuple[Any, int]:
    """Something to slice, and how many of its elements a row has."""
    if is_on_card(part):
        return part.reshape(rows, -1), 1
    return memory_of(part), row_bytes


class _PinnedFrames:
    """Two buffers of pinned memory that frames of a card are copied to in turn, in a side stream."""

    def __init__(self, device: Any) -> None:
        self._torch = sys.modules["torch"]
        self._device = device
        self._side = self._torch.cuda.Stream(device)
        self._free: "queue.Queue[_PinnedFrame]" = queue.Queue()
        for _ in range(2):
            self._free.put(_PinnedFrame(self._torch, self._free))

    def copy(self, part: Part) -> "_PinnedFrame":
        """Queues the copy of a frame; waits for a free buffer.

        Later operations of the current stream wait for the copy, so that the item's memory may be
        used again.
        """
        torch = self._torch
        frame = self._free.get()
        frame.reserve(part.size)
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            at = 0
            for piece in part.parts:
                if is_on_card(piece):
                    raw = piece.reshape(-1).view(torch.uint8)
                    raw.record_stream(self._side)
                    size = raw.numel()
                    frame.buffer[at : at + size].copy_(raw, non_blocking=True)
                else:
                    raw = memory_of(piece)
                    size = raw.nbytes
                    memory_of(frame.buffer)[at : at + size] = raw
                at += size
            frame.copied.record(self._side)
        current.wait_event(frame.copied)
        frame.fill(part)
        return frame


class _PinnedFrame(_Frame):
    """A frame in pinned memory, free again once it is written."""

    def __init__(self, torch: Any, free: "queue.Queue[_PinnedFrame]") -> None:
        super().__init__([])
        self._torch, self._free = torch, free
        self.buffer: Any = None
        self.copied = torch.cuda.Event()
        self.written = self  # type: ignore[assignment]

    def reserve(self, size: int) -> None:
        if self.buffer is None or self.buffer.numel() < size:
            self.buffer = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)

    def fill(self, part: Part) -> None:
        self._pieces = [frame_head(part.rows, part.size), memory_of(self.buffer)[: part.size]]

    def contents(self) -> List[memoryview]:
        self.copied.synchronize()
        return super().contents()

    def set(self) -> None:
        """It is written."""
        self._free.put(self)


def _write_all(fd: int, pieces: Iterable[memoryview]) -> None:
    """Writes every byte of the pieces; blocks while the pipe is full."""
    left = [piece for piece in pieces if piece.nbytes > 0]
    while left:
        wrote = os.writev(fd, left)
        while left and wrote >= left[0].nbytes:
            wrote -= left.pop(0).nbytes
        if left and wrote > 0:
            left[0] = left[0][wrote:]


def _widen(fd: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    import fcntl

    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # more than an unprivileged user may have: it is only slower


def _close(items: Any) -> None:
    """Ends a generator where it is, so that what it holds (hooks, files) is given back."""
    try:
        getattr(items, "close", lambda: None)()
    except Exception:
        pass  # the run is over, or the error that ended it is the one to raise
