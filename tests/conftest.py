"""For every tier: what a test finds must not depend on how busy the machine is, or on who started the tests."""

import os
import signal
import tempfile

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes is no matter of right and wrong; a fixture lives as long as all examples of a test
_LATITUDE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("project", deadline=None, suppress_health_check=_LATITUDE)
settings.load_profile("project")

# a shell starts what runs in the background with SIGINT ignored, and so would the commands that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

# the tests of client libraries run in environments of their own: make clients
collect_ignore_glob = ["clients/*"]

# what daemons find out about this machine while they are tested is not for those that people run
_state = tempfile.TemporaryDirectory()
os.environ["XDG_STATE_HOME"] = _state.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in config.option.markexpr.replace("not slow", ""):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: make slow (pytest -m slow)"))
