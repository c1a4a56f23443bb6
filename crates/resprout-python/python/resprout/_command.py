"""The command `resprout`."""
import signal
import sys

from . import _native


def main():
    # The command has handlers of its own; Python's would wait until it is done.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_native.command(["resprout", *sys.argv[1:]]))
