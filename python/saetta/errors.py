"""What goes wrong, as exceptions. The message is one line: what is wrong, and what to do."""

from __future__ import annotations


class Error(Exception):
    """A file, folder, device or stream of rows is not there or not as it must be (exit code 1)."""


class UsageError(Error):
    """An option or argument makes no sense (exit code 2)."""


def error_of(code: int, stderr: str) -> Error:
    """The exception for a command that ended with `code` and wrote `stderr`."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    line = lines[-1] if lines else f"the command ended with exit code {code} and said nothing"
    if line.startswith("saetta: "):
        line = line[len("saetta: ") :]
    return (UsageError if code == 2 else Error)(line)
