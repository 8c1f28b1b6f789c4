"""The commands behind the Makefile: ``python -m tools.<name>`` from the root of the
repository."""
