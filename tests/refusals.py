"""What is refused ends in one line that says what it was about and what is allowed; a file that would run code."""

import contextlib
import os

import pytest


def one_line(message, *parts):
    assert "\n" not in message
    for part in parts:
        assert part in message


@contextlib.contextmanager
def refused(error, *parts, match=None):
    """What is done within raises this error, whose message is one line that has each of the parts."""
    with pytest.raises(error, match=match) as caught:
        yield caught
    one_line(str(caught.value), *parts)


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)
