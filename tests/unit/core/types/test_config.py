"""The settings are checked once, when they are made, and never change."""

import dataclasses
from typing import Any

import pytest

from pydsm.core.types.config import Config
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId


def config_with(name: str, value: int) -> Config:
    """The defaults but for one field, given by name."""
    fields: dict[str, Any] = {"replica": ReplicaId(0), "replicas": 3, name: value}
    return Config(**fields)


UNITS = ("_ticks", "_max", "_min", "_block")
BOUNDED = [field.name for field in dataclasses.fields(Config) if field.name.endswith(UNITS)]


def test_the_defaults_work_for_every_replica_of_a_group() -> None:
    configs = [Config(ReplicaId(replica), 5) for replica in range(5)]
    assert [config.replica for config in configs] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("replica", "replicas"), [(3, 3), (-1, 3), (0, 0), (5, 3)])
def test_a_replica_outside_its_group_is_refused(replica: int, replicas: int) -> None:
    with pytest.raises(UsageError, match=f"replica {replica} is not in a group of {replicas}"):
        Config(ReplicaId(replica), replicas)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_or_time_below_1_is_refused_and_named(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, got {value}"):
        config_with(name, value)


@pytest.mark.parametrize("name", BOUNDED)
def test_1_is_enough_for_every_limit_and_time(name: str) -> None:
    assert getattr(config_with(name, 1), name) == 1


def test_every_number_but_the_seed_and_the_group_has_its_unit_in_its_name() -> None:
    numbers = {field.name for field in dataclasses.fields(Config) if field.type in {"int", int}}
    assert numbers - set(BOUNDED) == {"replicas", "seed"}


def test_a_config_does_not_change() -> None:
    config = Config(ReplicaId(0), 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]  # that it is refused at run time too is the point
