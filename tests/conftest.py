"""What all tests share: how hard properties are tried, and what happens where a program is missing."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

_UNDER_CI = os.environ.get("CI", "") == "true"
_HOW_TO_GET_REDIS_CLI = 'needs redis-cli, which is not installed: "apt-get install redis-tools" or "brew install redis"'

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if _UNDER_CI else "default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without redis-cli its tests are named as not run; on a build server, where CI=true, they run and fail."""
    if shutil.which("redis-cli") is None and not _UNDER_CI:
        for item in items:
            if item.get_closest_marker("redis_cli") is not None:
                item.add_marker(pytest.mark.skip(reason=f"NOT RUN: {_HOW_TO_GET_REDIS_CLI}"))
