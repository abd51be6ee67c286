"""Errors that a user sees as one line: what happened, where, and what to do."""

import errno
import os
import re
import shutil

# What the system says when a disk, a quota or a file-size limit is full.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a URL can hold of a user: a password (up to the last @, for it may hold slashes), a token in the place of a name,
# a password among the options.
_SECRETS = (
    (re.compile(r"(?<=://)([^\s/?#@:]*:)\S*@"), r"\1***@"),
    (re.compile(r"(?<=://)[^\s/?#@:]+@"), "***@"),
    (re.compile(r"(?<=[?&]password=)[^\s&]+"), "***"),
)


def masked(text: str) -> str:
    """A text without the passwords and tokens that URLs in it hold."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


def disk_full(error: OSError) -> str | None:
    """What the system said if there was no room, else None. Copying a folder keeps only the words of its errors."""
    if isinstance(error, shutil.Error):
        return next((os.strerror(number) for number in _DISK_FULL if f"[Errno {number}]" in str(error)), None)
    return os.strerror(error.errno) if error.errno in _DISK_FULL else None


class FactoryError(Exception):
    """A mistake in usage or input. The command line prints the message without a traceback and exits with 2.

    Messages go to terminals, logs and reports, so they are masked whoever writes them.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


class Unavailable(FactoryError):
    """Something is not there now and may be later: a server that is away, room on a disk. Trying again may help."""


class CheckFailed(FactoryError):
    """A gate or a check said no. The command line prints the message and exits with 1."""

    exit_code = 1
