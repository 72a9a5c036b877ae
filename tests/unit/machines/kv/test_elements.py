"""Elements with positions: both forms behave alike, in any order of changes."""

from random import Random

import pytest

from pydsm.machines.kv.elements import SMALL_ELEMENTS_MAX, Elements


class Plain:
    """A simple reference implementation: a list of pairs."""

    def __init__(self) -> None:
        self.items: list[tuple[bytes, int]] = []

    def put(self, key: bytes, value: int) -> None:
        for place, (one, _) in enumerate(self.items):
            if one == key:
                self.items[place] = (key, value)
                return
        self.items.append((key, value))

    def remove(self, key: bytes) -> bool:
        for place, (one, _) in enumerate(self.items):
            if one == key:
                last = self.items.pop()
                if place < len(self.items):
                    self.items[place] = last
                return True
        return False


@pytest.mark.parametrize("seed", range(10))
def test_positions_follow_from_the_changes_alone_whatever_the_size(seed: int) -> None:
    random, elements, plain = Random(seed), Elements[int](), Plain()
    keys = [b"%d" % number for number in range(2 * SMALL_ELEMENTS_MAX)]
    for step in range(2000):
        key = random.choice(keys)
        if random.random() < (0.8 if step // 400 % 2 == 0 else 0.3):
            elements[key] = step
            plain.put(key, step)
        else:
            assert elements.remove(key) == plain.remove(key)
        assert len(elements) == len(plain.items)
        if step % 20 == 0:
            assert list(elements.items()) == plain.items
            assert list(elements) == [one for one, _ in plain.items] == [*elements.keys_between(0, len(elements))]
            assert list(elements.values()) == [value for _, value in plain.items]
            assert list(elements.copy().items()) == plain.items
            assert set(elements.lookup) == {one for one, _ in plain.items}
            assert all(elements.key_at(place) == one for place, (one, _) in enumerate(plain.items))
            assert all(elements[one] == elements.get(one) == value for one, value in plain.items)
            assert elements.get(b"none") is None
            assert b"none" not in elements


@pytest.mark.parametrize("seed", range(20))
def test_a_scan_from_the_end_returns_all_elements_that_stay(seed: int) -> None:
    random, elements = Random(seed), Elements[None]()
    for number in range(400):
        elements[b"%d" % number] = None
    stay = {b"%d" % number for number in range(400) if number % 3 == 0}
    found: set[bytes] = set()
    end = len(elements)
    while end > 0:
        start = max(end - 7, 0)
        found.update(elements.keys_between(start, end))
        for _ in range(random.randrange(12)):
            key = b"%d" % random.randrange(600)
            if key not in stay:
                elements.remove(key)
            if random.random() < 0.4:
                elements[key] = None
        end = min(start, len(elements))
    assert found >= stay
