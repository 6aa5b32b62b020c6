"""The modules with the longest tests begin first, so that no process is left alone with one of them at the end."""

import pytest

LONG = ("test_sweep.py", "test_studies.py", "test_bidaf.py", "test_fuzz.py", "test_runtime_fuzz.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)
