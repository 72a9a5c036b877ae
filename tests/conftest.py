"""What all tests share: how hard properties are tried, and what happens where a program is missing."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

_UNDER_CI = os.environ.get("CI", "") == "true"
# Programs that are not ours, by the marker of the tests that need them. `make test` installs them where it can; a
# laptop without them still runs everything else, and is told what was not run.
_PROGRAMS = {
    "redis_cli": ("redis-cli", '"apt-get install redis-tools" or "brew install redis"'),
    "openssl": ("openssl", '"apt-get install openssl" or "brew install openssl"'),
}

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if _UNDER_CI else "default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a program its tests are named as not run; on a build server, where CI=true, they run and fail."""
    for marker, (program, how) in _PROGRAMS.items():
        if _UNDER_CI or shutil.which(program) is not None:
            continue
        for item in items:
            if item.get_closest_marker(marker) is not None:
                # Not a test switched off: nothing of it could run here, and CI does not come this way.
                item.add_marker(pytest.mark.skip(reason=f"NOT RUN: needs {program}, which is not installed: {how}"))
