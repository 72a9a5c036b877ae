"""Known but unexecuted indexes: an ordered mapping whose memory does not grow with the numbers in it."""

from random import Random

import pytest

from pydsm.core.log.unexecuted import Unexecuted
from pydsm.core.types.ids import Tick


def test_it_is_an_ascending_mapping_whatever_is_added_and_removed() -> None:
    """Against a plain dictionary, with short and long gaps."""
    for seed in range(60):
        random = Random(seed)
        plain: dict[int, int] = {}
        unexecuted = Unexecuted()
        last = 0
        for now in range(40):
            gap = random.choice([1, 1, 2, 300, 1000])
            unexecuted.extend(last + 1, last + gap, Tick(now // 3))
            plain.update(dict.fromkeys(range(last + 1, last + gap + 1), now // 3))
            last += gap
            count = random.choice([0, 1, 300])
            some = random.sample(sorted(plain), min(len(plain), count))
            for index in sorted(plain)[:count] if random.random() < 0.5 else some:
                del unexecuted[index]
                del plain[index]
            assert len(unexecuted) == len(plain)
            assert next(iter(unexecuted), 0) == next(iter(sorted(plain)), 0)
        assert list(unexecuted) == sorted(plain)
        assert dict(unexecuted.items()) == plain
        assert all((index in unexecuted) == (index in plain) for index in range(last + 2))


@pytest.mark.parametrize("last", [3, 5000])
def test_removing_an_absent_index_raises(last: int) -> None:
    unexecuted = Unexecuted()
    unexecuted.extend(1, last, Tick(0))
    del unexecuted[last]
    for index in (0, last, last + 1):
        with pytest.raises(KeyError):
            del unexecuted[index]


def test_a_gap_of_a_million_is_as_large_as_one_of_a_thousand() -> None:
    unexecuted = Unexecuted()
    unexecuted.extend(1, 1_000_000, Tick(7))
    unexecuted.extend(1_000_001, 2_000_000, Tick(7))
    assert (len(unexecuted), len(unexecuted._singles), len(unexecuted._spans)) == (2_000_000, 256, 1)
