"""The commands behind the Makefile: ``python -m tools.<name>`` from the root of the
repository."""

import io
import sys

# A terminal that lacks a character shows a question mark, and the command goes on.
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
