"""What a process that does little else than run Holdfast sets for itself; a host in another program leaves it be."""

from __future__ import annotations

import gc
import sys


def tune_process() -> None:
    """Set two knobs of the interpreter, for the whole process.

    The garbage collector looks less often: thousands of instances that wait are no garbage, and looking through them
    again and again costs about a seventh of the throughput. And threads change places sooner: the thread that writes
    to SQLite needs the interpreter for moments only, but while the event loop is busy it would wait 5 ms for each.
    """
    gc.set_threshold(50_000, 20, 20)
    sys.setswitchinterval(0.0005)
