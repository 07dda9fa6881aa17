"""The command `saetta`: where it is, how options become flags, and processes that end with Python."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
from typing import Any, Callable, List, Mapping, Optional, Sequence

from .errors import Error, error_of

PR_SET_PDEATHSIG = 1


def command() -> List[str]:
    """The words that start the command.

    In this order: the environment variable SAETTA (a path, or words as in a shell), `saetta` on
    PATH, the npm package that holds this folder. Throws Error where there is none.
    """
    named = os.environ.get("SAETTA")
    if named:
        return [named] if os.path.exists(named) else shlex.split(named)
    on_path = shutil.which("saetta")
    if on_path is not None:
        return [on_path]
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = os.path.join(package, "dist", "cli.js")
    if os.path.exists(script):
        return ["node", script]
    raise Error("the command saetta is not on PATH; npm install saetta, or set SAETTA to where it is")


def flags(options: Mapping[str, Any]) -> List[str]:
    """Options as flags: latents=4096 -> --latents 4096, tensorboard=True -> --tensorboard.

    None is not given; False is --no-...; a list of numbers is joined by commas, a list of paths
    repeats the flag.
    """
    words: List[str] = []
    for name, value in options.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if value is None:
            continue
        if value is True:
            words.append(flag)
        elif value is False:
            words.append("--no-" + flag[2:])
        elif isinstance(value, (list, tuple)):
            if all(isinstance(each, (int, float)) for each in value) or name.startswith("exclude_"):
                words.extend(_flag(flag, ",".join(map(str, value))))
            else:
                for each in value:
                    words.extend(_flag(flag, os.fspath(each)))
        else:
            words.extend(_flag(flag, str(os.fspath(value) if isinstance(value, os.PathLike) else value)))
    return words


def _flag(flag: str, value: str) -> List[str]:
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def start(words: Sequence[str], **pipes: Any) -> "subprocess.Popen[bytes]":
    """Starts the command in a session of its own, so that Ctrl-C reaches Python alone.

    On Linux the kernel sends it SIGTERM when the thread that calls this ends; so this must be
    called in a thread that lives as long as the process may.
    """
    try:
        return subprocess.Popen([*command(), *words], start_new_session=True, preexec_fn=_follow_parent(), **pipes)
    except OSError as cause:
        raise Error(f"{command()[0]}: cannot be started ({cause.strerror}); install Node 20.19 or later") from cause


def _follow_parent() -> Optional[Callable[[], None]]:
    """What the child does before it becomes the command; made before the fork, which has threads."""
    if not sys.platform.startswith("linux"):
        return None  # a closed standard input still ends a run that reads rows
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent, number = os.getpid(), int(signal.SIGTERM)

    def follow() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return follow


def output_of(words: Sequence[str]) -> str:
    """Runs the command to its end and returns its standard output. Throws Error and UsageError."""
    with start(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise error_of(process.returncode, err.decode("utf-8", "replace"))
    return out.decode("utf-8", "replace")
