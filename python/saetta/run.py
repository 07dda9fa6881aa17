"""Training: a run of `saetta train` as an object of Python."""

from __future__ import annotations

import atexit
import collections
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from typing import Any, Deque, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from .command import flags, output_of, start
from .errors import Error, error_of
from .save import save
from .stream import RowWriter, rows_in

Path = Union[str, "os.PathLike[str]"]

#: Seconds between looks at metrics.jsonl.
_POLL = 0.1
#: How `saetta` ends after SIGINT and SIGTERM; killed by SIGTERM before it could catch it.
_STOPPED = (130, 143, -15)


class Record(dict):  # type: ignore[type-arg]
    """A dict whose keys are attributes too: step.fvu, result.reason."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name} here; there is {', '.join(self)}") from None


class Step(Record):
    """A line of metrics.jsonl: step, tokens (rows), loss, mse, fvu, l0, dead, lr, elapsed_s (seconds)...

    What was not finite is NaN. Metrics of the hold-out are in the lines of evaluations alone:
    step.get("holdout_fvu").
    """


def train(
    data: Union[Path, Sequence[Path], Iterable[Any], Any], *, out: Optional[Path] = None, **options: Any
) -> "Run":
    """Trains an autoencoder with the command `saetta train`; returns when training begins.

    data: a path or a list of them (files or folders of activations); or an iterable of rows: torch
    tensors, numpy arrays or buffers [rows, width] or [contexts, context, width], in float16,
    bfloat16 or float32; with token ids and a mask as tuples (activations, tokens, mask) or dicts
    with these keys. Iterables are read once, in a thread; give tokens=, the rows to train on, unless
    data is one tensor or a list of them.

    out: the run folder; default runs/<data>-<UTC time>. options: the flags of `saetta train` with
    underscores, such as latents=16384, k=32, normalize="unit", serve=True.

    Throws UsageError and Error with the command's words, and what the iterable raises. The run ends
    with a checkpoint when Python ends.
    """
    paths = _paths(data)
    if paths is not None:
        return Run(paths, out or _default_out(os.path.basename(os.path.abspath(paths[0]))), options)
    about = dict(getattr(data, "about", {}))
    writer = RowWriter(data, {"rows": rows_in(data), **about})
    writer.wait_first()
    return Run(["-"], out or _default_out("stream"), options, writer)


class Run:
    """A run that trains. Iterate over it for its steps, as often as you like."""

    def __init__(
        self, data: Sequence[str], out: Path, options: Mapping[str, Any], writer: Optional[RowWriter] = None
    ) -> None:
        """Starts the command and waits until it trains. Use `train`."""
        #: The run folder.
        self.path = os.fspath(out)
        self._metrics = os.path.join(self.path, "metrics.jsonl")
        self._writer = writer
        self._words = ["train", *data, *flags({**options, "out": self.path}), "--json"]
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._failure: Optional[BaseException] = None
        self._out = b""
        self._said: Deque[str] = collections.deque(maxlen=100)
        self._ended = threading.Event()
        self._stopping = False
        _alive.add(self)
        self._was_there = os.path.exists(self._metrics)
        threading.Thread(target=self._keep, name="saetta-run", daemon=True).start()
        try:
            self._wait_until_it_trains()
        except BaseException:
            self._ask_to_stop()
            raise

    def __iter__(self) -> Iterator[Step]:
        """Yields the steps that the run logged, and those to come; ends with the run.

        Throws what ended the run too early, as `wait` does.
        """
        with open(self._metrics, "rb") as file:
            rest = b""
            while True:
                ended = self._ended.is_set()
                *lines, rest = (rest + file.read()).split(b"\n")
                for line in lines:
                    yield Step({name: _number(value) for name, value in json.loads(line).items()})
                if ended:
                    break
                if not lines:
                    self._ended.wait(_POLL)
        self.wait()

    def wait(self) -> Record:
        """Waits for the end; returns the result: run, reason, steps, tokens, report, advice.

        Throws what the iterable of rows raised, UsageError and Error.
        """
        while not self._ended.wait(_POLL):  # so that Ctrl-C gets in
            pass
        if self._failure is not None:
            raise self._failure
        if self._writer is not None and self._writer.error is not None:
            raise self._writer.error
        assert self._process is not None
        code = self._process.returncode
        if code == 0 or (self._stopping and code in _STOPPED):
            return Record(json.loads(self._out)) if self._out.strip() else Record(run=self.path, reason="stopped")
        raise self._error(code)

    def stop(self) -> Record:
        """Finishes the step, saves a checkpoint, and returns the result as `wait` does."""
        self._ask_to_stop()
        return self.wait()

    @property
    def result(self) -> Record:
        """What `wait` returns; waits for it."""
        return self.wait()

    @property
    def running(self) -> bool:
        """Whether the command still runs."""
        return not self._ended.is_set()

    def report(self, out: Path = "features.html", *, data: Any = None, rows: int = 250_000, **options: Any) -> Any:
        """Writes what each latent does as one HTML file, with `saetta report`.

        out: the file; options: the flags of `saetta report`, such as force=True. data: activations to
        look at, as paths or an iterable as for `train`, of which `rows` are taken; default: the hold-out
        of the run, which must have come from files. In a notebook returns what shows the page, else
        the path.
        """
        with tempfile.TemporaryDirectory(prefix="saetta-rows-") as folder:
            paths = _paths(data) if data is None or _paths(data) else [save(data, folder, rows=rows)]
            output_of(["report", self.path, *flags({"out": out, **options}), *(["--data", *paths] if paths else [])])
        return shown(os.fspath(out))

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: Any) -> None:
        self._ask_to_stop()
        self._ended.wait()

    def __repr__(self) -> str:
        return f"<saetta.Run {self.path}, {'running' if self.running else 'ended'}>"

    def _keep(self) -> None:
        """Starts the process and waits for its end, in a thread that lives as long as it does."""
        writer = self._writer
        try:
            process = start(
                self._words,
                stdin=subprocess.DEVNULL if writer is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except BaseException as failure:
            self._failure = failure
            if writer is not None:
                writer.abandon()
            self._ended.set()
            return
        self._process = process
        if writer is not None:
            assert process.stdin is not None
            writer.attach(os.dup(process.stdin.fileno()))
            process.stdin.close()
        listener = threading.Thread(target=self._listen, name="saetta-notes", daemon=True)
        listener.start()
        assert process.stdout is not None
        self._out = process.stdout.read()
        process.wait()
        listener.join()
        process.stdout.close()
        if writer is not None:
            writer.abandon()
        self._ended.set()

    def _listen(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        with self._process.stderr as lines:
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self._said.append(line)
                if line.startswith("saetta: note: "):
                    print(line, file=sys.stderr)

    def _wait_until_it_trains(self) -> None:
        # Of a folder that another run has already, the command says so.
        while self._was_there or not os.path.exists(self._metrics):
            if self._ended.wait(_POLL / 2):
                if self._was_there or not os.path.exists(self._metrics):
                    self.wait()
                return

    def _ask_to_stop(self) -> None:
        self._stopping = True
        if self._process is not None and self.running:
            self._process.terminate()

    def _error(self, code: int) -> Error:
        if code < 0:
            return Error(f"{self.path}: the run was killed by signal {-code}; saetta resume {self.path} continues it")
        return error_of(code, "\n".join(self._said))


_alive: "weakref.WeakSet[Run]" = weakref.WeakSet()
_process_id = os.getpid()


@atexit.register
def _stop_all() -> None:
    if os.getpid() != _process_id:
        return  # a fork: the runs are its parent's
    runs = [run for run in _alive if run.running]
    for run in runs:
        run._ask_to_stop()
    for run in runs:
        run._ended.wait()


def shown(path: str) -> Any:
    """In a notebook what shows the HTML file `path`, else the path."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return path
    from IPython.display import IFrame  # type: ignore[import-not-found]

    return IFrame(os.path.relpath(path), width="100%", height=800)


def _paths(data: Any) -> Optional[List[str]]:
    """The paths that data is; None where it is something else."""
    each = list(data) if isinstance(data, (list, tuple)) else [data]
    return [os.fspath(path) for path in each] if each and all(isinstance(path, (str, os.PathLike)) for path in each) else None


def _default_out(name: str) -> str:
    """runs/<name>-<UTC time>, as the command calls it; never one that is there."""
    stem = os.path.splitext(name)[0]
    path = first = os.path.join("runs", f"{stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    count = 1
    while os.path.exists(path):
        count += 1
        path = f"{first}-{count}"
    return path


def _number(value: Any) -> Any:
    return float("nan") if value is None else value

