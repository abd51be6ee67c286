"""Errors that a user sees as one line: what happened, where, and what to do."""

import errno
import os
import shutil

# What the system says when a disk, a quota or a file-size limit is full.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full(error: OSError) -> str | None:
    """What the system said if there was no room, else None. Copying a folder keeps only the words of its errors."""
    if isinstance(error, shutil.Error):
        return next((os.strerror(number) for number in _DISK_FULL if f"[Errno {number}]" in str(error)), None)
    return os.strerror(error.errno) if error.errno in _DISK_FULL else None


class FactoryError(Exception):
    """A mistake in usage or input. The command line prints the message without a traceback and exits with 2."""

    exit_code = 2


class Unavailable(FactoryError):
    """Something is not there now and may be later: a server that is away, room on a disk. Trying again may help."""


class CheckFailed(FactoryError):
    """A gate or a check said no. The command line prints the message and exits with 1."""

    exit_code = 1
