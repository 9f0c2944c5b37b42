"""The README as a newcomer reads it. `make readme` runs these; minutes, root and the package indexes are needed."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = "readme" in config.option.markexpr.replace("not readme", "")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.readme)
            item.add_marker(pytest.mark.timeout(3000))
            if not asked:
                item.add_marker(pytest.mark.skip(reason="takes minutes: make readme (pytest -m readme)"))
