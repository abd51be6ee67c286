"""Errors that a user sees as one line: what happened, where, and what to do."""

import errno

# What the system says when a disk, a quota or a file-size limit is full.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FactoryError(Exception):
    """A mistake in usage or input. The command line prints the message without a traceback and exits with 2."""

    exit_code = 2


class Unavailable(FactoryError):
    """Something is not there now and may be later: a server that is away, room on a disk. Trying again may help."""


class CheckFailed(FactoryError):
    """A gate or a check said no. The command line prints the message and exits with 1."""

    exit_code = 1
