"""The README as a newcomer reads it. `make readme` runs these; minutes, root and the package indexes are needed."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3000))
