"""From an exception to one line on stderr and an exit code. ENGRAM_DEBUG=1 shows the traceback before the line."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import click

from engram.app.cli.output import emit_json, say
from engram.core.errors import EngramError, did_you_mean

FAILED, USAGE, MEMORY, INTERRUPTED = 1, 2, 5, 130


def exit_code_of(error: BaseException, as_json: bool = False) -> int:
    """Say what went wrong (on stdout too when `as_json`) and return the exit code."""
    if isinstance(error, BrokenPipeError):
        # the reader (`| head`) has what it wanted; stdout must not be flushed into the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    if os.environ.get("ENGRAM_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error, file=sys.stderr)
    text, code = explain(error)
    say(f"engram: {text}" if code == INTERRUPTED else f"engram: error: {text}")
    if as_json:
        emit_json({"error": text, "exit_code": code})
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """The line and the exit code."""
    if isinstance(error, EngramError):
        return _one_line(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", INTERRUPTED
    if isinstance(error, click.NoSuchOption):
        return f"no option {error.option_name}{did_you_mean(error.option_name, error.possibilities or ())}", USAGE
    if isinstance(error, click.ClickException):
        text = error.format_message()
        return _one_line(text[:1].lower() + text[1:]).rstrip("."), USAGE
    if isinstance(error, MemoryError) or _no_memory(error):
        return "out of memory; use a smaller batch (batch=..., for predict --rows), or a smaller network", MEMORY
    if isinstance(error, OSError):
        return _system(error), FAILED
    what = f"{type(error).__name__}: {_one_line(error)}" if str(error) else type(error).__name__
    return f"{what} (this is a bug; ENGRAM_DEBUG=1 shows the traceback)", FAILED


def _no_memory(error: BaseException) -> bool:
    """Torch reports memory that ran out as a RuntimeError or a subclass; asking by text does not import torch."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _system(error: OSError) -> str:
    """What the operating system said, with the file and what to do."""
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write{where}: the disk is full; free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for{where or ' a file'}; choose another place or change its permissions"
    if error.errno == errno.ENOENT:
        return f"there is no{where or ' such file'}"
    if error.errno == errno.EISDIR:
        return f"{error.filename} is a folder, not a file"
    return f"{error.strerror or type(error).__name__}{':' + where if where else ''}"


def _one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split())
