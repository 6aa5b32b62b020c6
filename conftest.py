"""The modules with the longest tests begin first, so that no process is left alone with one of them at the end."""

import pytest
import torch

LONG = (
    "test_sweep.py",
    "test_studies.py",
    "test_bidaf.py",
    "test_bidaf_study.py",
    "test_fuzz.py",
    "test_runtime_fuzz.py",
)

# Where there is no accelerator, torch.manual_seed formats a stack for each kind that may come later: of the deep ones
# of a test that takes four times as long as all else.
if not torch.accelerator.is_available():
    for kind in (torch.cuda, torch.xpu, torch.mtia):
        setattr(kind, "manual_seed_all", lambda seed: None)  # noqa: B010


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)
