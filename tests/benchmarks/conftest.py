import pytest


def pytest_collection_modifyitems(config, items):
    """Timings are for a quiet machine: they run where they are asked for, by
    `make bench`."""
    if not config.getoption("benchmark_enable"):
        here = pytest.mark.skip(reason="a benchmark; `make bench` runs it")
        for item in items:
            if "benchmarks" in item.path.parts:
                item.add_marker(here)
