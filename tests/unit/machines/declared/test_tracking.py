"""Containers of a state behave as plain ones, can be undone, and are frozen as they were."""

import bisect
import contextlib
import copy
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm import StateMachine
from pydsm.machines.declared.machine import DeclaredMachine
from tests.unit.machines.declared.shops import Colour, Everything, Job, Note, Point


class Refused(Exception):
    """What a command raises here."""


class Harness:
    """A machine whose fields a test changes as commands do."""

    def __init__(self, cls: type[StateMachine] = Everything) -> None:
        self.machine = DeclaredMachine(cls)
        self.fields: Any = self.machine._machine

    @contextmanager
    def command(self) -> Iterator[Any]:
        """A command that succeeds, or raises and is undone."""
        journal = self.machine._state.journal
        try:
            yield self.fields
            journal.settle()
        except BaseException:
            journal.undo()
            raise
        journal.changes.clear()

    def plain(self) -> Any:
        """The fields as a snapshot has them."""
        return restored(list(self.machine.snapshot()), self.machine.cls)


def restored(chunks: list[bytes], cls: type[StateMachine] = Everything) -> dict[str, Any]:
    machine = DeclaredMachine(cls)
    machine.restore(chunks)
    return machine.fields()


CHANGES: dict[str, Callable[[Any, str, int], object]] = {
    "set": lambda fields, key, n: fields.counts.__setitem__(key, n),
    "delete": lambda fields, key, n: fields.counts.pop(key, None),
    "clear": lambda fields, key, n: fields.counts.clear(),
    "update": lambda fields, key, n: fields.counts.update({key: n, "z": n}),
    "setdefault": lambda fields, key, n: fields.counts.setdefault(key, n),
    "popitem": lambda fields, key, n: fields.counts and fields.counts.popitem(),
    "replace": lambda fields, key, n: setattr(fields, "counts", {key: n}),
    "merge": lambda fields, key, n: fields.counts.__ior__({key: n}),
    "point": lambda fields, key, n: fields.points.__setitem__(Point(n, n), (n, key)),
    "nest": lambda fields, key, n: fields.nested.setdefault(key, {}).setdefault("in", []).append(n),
    "unnest": lambda fields, key, n: fields.nested.pop(key, None),
    "clear inside": lambda fields, key, n: fields.nested.get(key, {}).clear(),
    "append": lambda fields, key, n: fields.queue.append(n),
    "extend": lambda fields, key, n: fields.queue.extend([n, n + 1]),
    "insert": lambda fields, key, n: fields.queue.insert(n, n),
    "pop first": lambda fields, key, n: fields.queue and fields.queue.pop(0),
    "pop last": lambda fields, key, n: fields.queue and fields.queue.pop(),
    "sort": lambda fields, key, n: fields.queue.sort(reverse=bool(n % 2)),
    "reverse": lambda fields, key, n: fields.queue.reverse(),
    "slice": lambda fields, key, n: fields.queue.__setitem__(slice(0, n), [n]),
    "delete slice": lambda fields, key, n: fields.queue.__delitem__(slice(0, n)),
    "times": lambda fields, key, n: fields.queue.__imul__(n % 3),
    "empty": lambda fields, key, n: fields.queue.clear(),
    "row": lambda fields, key, n: fields.rows.append([n]),
    "row inside": lambda fields, key, n: fields.rows and fields.rows[0].append(n),
    "row out": lambda fields, key, n: fields.rows and fields.rows.pop(0),
    "tag": lambda fields, key, n: fields.tags.add(key),
    "untag": lambda fields, key, n: fields.tags.discard(key),
    "tags": lambda fields, key, n: fields.tags.__ixor__({key, "y"}),
    "tags without": lambda fields, key, n: fields.tags.__isub__({key}),
    "tags within": lambda fields, key, n: fields.tags.__iand__({key, "y"}),
    "more tags": lambda fields, key, n: fields.tags.__ior__({key, "x"}),
    "tag removed": lambda fields, key, n: key in fields.tags and fields.tags.remove(key),
    "lowest tag": lambda fields, key, n: fields.tags and fields.tags.discard(min(fields.tags)),
    "list item": lambda fields, key, n: fields.queue and fields.queue.__setitem__(-1, n),
    "list value": lambda fields, key, n: n in fields.queue and fields.queue.remove(n),
    "list added": lambda fields, key, n: fields.queue.__iadd__([n]),
    "list item removed": lambda fields, key, n: fields.queue and fields.queue.__delitem__(0),
    "row replaced": lambda fields, key, n: fields.rows and fields.rows.__setitem__(0, [n, n]),
    "note replaced": lambda fields, key, n: fields.notes and fields.notes.__setitem__(0, Note(key, n)),
    "notes reverse": lambda fields, key, n: fields.notes.reverse(),
    "notes copy": lambda fields, key, n: [note.__setattr__("stars", n) for note in fields.notes.copy()],
    "notes replace": lambda fields, key, n: fields.notes.__setitem__(slice(0, n), []),
    "notes seen": lambda fields, key, n: [note.text for note in reversed(fields.notes[0:n])],
    "job moved": lambda fields, key, n: key in fields.jobs and fields.jobs.__setitem__("c", fields.jobs[key]),
    "job or new": lambda fields, key, n: fields.jobs.setdefault(key, Job("new")).steps.append("x"),
    "job got": lambda fields, key, n: (fields.jobs.get(key) or Job("no")).steps.clear(),
    "job changed and out": lambda fields, key, n: key in fields.jobs and fields.jobs.pop(key).steps.append("y"),
    "group": lambda fields, key, n: fields.groups.setdefault(key, set()).add(n),
    "no tags": lambda fields, key, n: fields.tags.clear(),
    "number": lambda fields, key, n: setattr(fields, "number", fields.number + n),
    "share": lambda fields, key, n: setattr(fields, "share", n),
    "text": lambda fields, key, n: setattr(fields, "text", key * n),
    "colour": lambda fields, key, n: setattr(fields, "colour", Colour.BLUE if n % 2 else Colour.RED),
    "maybe": lambda fields, key, n: setattr(fields, "maybe", [n] if n % 2 else None),
    "maybe more": lambda fields, key, n: fields.maybe is not None and fields.maybe.append(n),
    "job": lambda fields, key, n: fields.jobs.__setitem__(key, Job(key, [key])),
    "job inside": lambda fields, key, n: key in fields.jobs and fields.jobs[key].steps.append(str(n)),
    "job out": lambda fields, key, n: fields.jobs.pop(key, None),
    "note": lambda fields, key, n: fields.notes.insert(0, Note(key)),
    "stars": lambda fields, key, n: [note.__setattr__("stars", note.stars + n) for note in fields.notes],
    "note out": lambda fields, key, n: fields.notes and fields.notes.pop(),
    "first": lambda fields, key, n: fields.first.steps.append(key),
    "other first": lambda fields, key, n: setattr(fields, "first", Job(key)),
    "json": lambda fields, key, n: fields.json.__setitem__(key, {"n": [n, None, key]}),
    "json inside": lambda fields, key, n: fields.json.get(key, {"n": []})["n"].append(n),
}
CHANGE = st.tuples(st.sampled_from(sorted(CHANGES)), st.sampled_from(["a", "b"]), st.integers(0, 4))
COMMANDS = st.lists(st.tuples(st.lists(CHANGE, max_size=6), st.booleans()), max_size=12)
FILLING = [
    "set", "point", "nest", "append", "row", "tag", "group", "number", "text", "maybe", "job", "note", "first", "json",
]  # fmt: skip


def filled() -> Harness:
    """With something in each field."""
    harness = Harness()
    for n in range(1, 4):
        for name in FILLING:
            with harness.command() as fields:
                CHANGES[name](fields, "ab"[n % 2], n)
    return harness


def model() -> Any:
    """The same fields without any tracking."""
    return Everything()


def run(harness: Harness, plain: Any, changes: list[tuple[str, str, int]], raises: bool) -> None:
    """One command on the state, and on the model unless it raises."""
    try:
        with harness.command() as fields:
            for name, key, n in changes:
                CHANGES[name](fields, key, n)
            if raises:
                raise Refused
    except Refused:
        return
    for name, key, n in changes:
        CHANGES[name](plain, key, n)


@given(COMMANDS)
def test_fields_are_those_of_plain_containers_without_the_commands_that_raised(commands: Any) -> None:
    harness, plain = Harness(), model()
    for changes, raises in commands:
        if any(name == "popitem" for name, _, _ in changes):
            continue  # the highest key, not the last
        run(harness, plain, changes, raises)
    expected = {name: getattr(plain, name) for name in vars(plain)}
    assert harness.plain() == expected
    assert harness.machine.fields() == expected


@pytest.mark.parametrize("name", sorted(CHANGES))
@pytest.mark.parametrize("raises", [False, True])
def test_a_snapshot_in_progress_does_not_have_a_change(name: str, raises: bool) -> None:
    harness = filled()
    expected = harness.plain()
    taken = harness.machine.snapshot()
    for n in (1, 2, 1):
        run_alone(harness, [(name, "a", n), (name, "b", n + 1)], raises)
    assert restored(list(taken)) == expected
    assert not raises or harness.machine.fields() == expected


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_change_is_undone(name: str) -> None:
    harness = filled()
    expected = harness.plain()
    for others in (["clear", "empty", "no tags"], FILLING):
        changes = [(one, "b", 3) for one in others]
        run_alone(harness, [(name, "a", 1), *changes, (name, "a", 2), (name, "b", 1), *changes], raises=True)
        assert harness.machine.fields() == expected == harness.plain()


@given(COMMANDS, COMMANDS, st.integers(0, 8))
def test_a_snapshot_has_the_state_at_its_beginning_whatever_is_executed_meanwhile(
    before: Any, after: Any, steps: int
) -> None:
    harness = Harness()
    for changes, raises in before:
        run(harness, model(), [], raises)
        run_alone(harness, changes, raises)
    expected, digest = harness.plain(), harness.machine.digest()
    taken = harness.machine.snapshot()
    chunks = [chunk for _, chunk in zip(range(steps), taken, strict=False)]
    for changes, raises in after:
        run_alone(harness, changes, raises)
        chunks += [chunk for _, chunk in zip(range(1), taken, strict=False)]
    chunks += list(taken)
    assert restored(chunks) == expected
    again = DeclaredMachine(Everything)
    again.restore(chunks)
    assert again.digest() == digest
    assert list(filter(None, again.snapshot())) == list(filter(None, chunks)), "equal states have equal chunks"


def run_alone(harness: Harness, changes: list[tuple[str, str, int]], raises: bool) -> None:
    try:
        with harness.command() as fields:
            for name, key, n in changes:
                CHANGES[name](fields, key, n)
            if raises:
                raise Refused
    except Refused:
        pass


@given(st.permutations(["a", "b", "c", "d"]))
def test_dicts_and_sets_have_the_order_of_their_keys_whatever_was_inserted_first(keys: list[str]) -> None:
    harness = Harness()
    with harness.command() as fields:
        for key in keys:
            fields.counts[key] = 1
            fields.tags.add(key)
        assert list(fields.counts) == list(fields.counts.copy()) == sorted(keys)
        assert list({**fields.counts}) == sorted(keys) == [*fields.tags] == list(fields.tags - {"x"} | {"a"})
        assert repr(fields.counts) == repr(dict.fromkeys(sorted(keys), 1))
        assert list(fields.counts.items()) == [(key, 1) for key in sorted(keys)]
        assert fields.tags.pop() == "a"
        assert next(reversed(fields.counts)) == "d"


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "iterate", "raise", "clear"]), st.integers(0, 30))))
def test_the_order_of_keys_stays_right_between_iterations(steps: list[tuple[str, int]]) -> None:
    harness = Harness()
    expected: dict[str, int] = {}
    for what, n in steps:
        key = f"{n:02d}"
        if what == "iterate":
            assert list(harness.fields.counts) == sorted(expected) == list(harness.fields.tags)
        elif what == "raise":
            with contextlib.suppress(Refused), harness.command() as fields:
                put_and_refuse(fields, key)
        else:
            with harness.command() as fields:
                if what == "add":
                    fields.counts[key] = expected[key] = n
                    fields.tags.add(key)
                elif what == "remove":
                    fields.counts.pop(key, None)
                    fields.tags.discard(key)
                    expected.pop(key, None)
                else:
                    fields.counts.clear()
                    fields.tags.clear()
                    expected.clear()
    assert list(harness.fields.counts) == sorted(expected) == list(harness.fields.tags)


def put_and_refuse(fields: Any, key: str) -> None:
    """Changes keys, looks at their order, and raises."""
    fields.counts[key] = 1
    fields.counts.pop("05", None)
    fields.tags.add(key)
    fields.tags.discard("05")
    assert list(fields.counts) == sorted(dict.keys(fields.counts))
    fields.counts["05"] = 2
    raise Refused


def test_operators_of_sets_give_sets_in_order_that_are_not_in_the_state() -> None:
    harness = Harness()
    with harness.command() as fields:
        fields.tags.update(["d", "b"], ["c"])
        tags = fields.tags
        for made, members in (
            (tags | {"a"}, "abcd"),
            ({"a"} | tags, "abcd"),
            (tags & {"b", "x"}, "b"),
            (tags - {"b"}, "cd"),
            ({"b", "x"} - tags, "x"),
            (tags ^ {"a", "b"}, "acd"),
            (tags.copy(), "bcd"),
            (tags.union({"a"}), "abcd"),
            (tags.symmetric_difference({"a"}), "abcd"),
        ):
            assert list(made) == list(members)
            made.add("z")
        assert tags.pop() == "b"
        assert repr(tags) == "{'c', 'd'}"
        assert (tags | tags).pop() == "c"
        tags.clear()
        assert repr(tags) == "set()"
    with pytest.raises(KeyError), harness.command() as fields:
        fields.tags.pop()
    with pytest.raises(KeyError), harness.command() as fields:
        fields.tags.remove("x")


def test_operators_and_copies_of_dicts_and_lists_are_plain() -> None:
    harness = filled()
    with harness.command() as fields:
        expected = harness.plain()
        assert fields.counts | {"z": 1} == {**expected["counts"], "z": 1}
        assert {"z": 1} | fields.counts == {"z": 1, **expected["counts"]}
        for made in (copy.copy(fields.counts), copy.deepcopy(fields.nested), fields.counts.copy(), {**fields.counts}):
            assert type(made) is dict
        assert type(copy.copy(fields.queue)) is type(copy.deepcopy(fields.rows)) is type(fields.rows[:]) is list
        assert copy.deepcopy(fields.rows) == expected["rows"]
        assert copy.deepcopy(fields.tags) == copy.copy(fields.tags) == expected["tags"]
        assert json.loads(json.dumps(fields.nested)) == expected["nested"]
        for container in (fields.counts, fields.queue, fields.tags):
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(container)
        bisect.insort(fields.queue, 2)
    assert harness.machine.fields()["queue"] == sorted([*expected["queue"], 2])
    with pytest.raises(KeyError), harness.command() as fields:
        fields.counts.pop("missing")
    with pytest.raises(KeyError), harness.command() as fields:
        fields.nested.get("none", fields.counts.__class__({}, fields.counts._kind, fields.counts._root)).popitem()


def test_an_object_that_a_command_keeps_is_not_the_one_in_the_state() -> None:
    harness = Harness()
    rows = [1]
    job = Job("a")
    with harness.command() as fields:
        fields.rows.append(rows)
        rows.append(2)
        fields.jobs["a"] = job
        job.steps.append("in the command")
    rows.append(3)
    job.steps.append("after it")
    assert harness.plain()["rows"] == [[1, 2]]
    assert harness.plain()["jobs"] == {"a": Job("a", ["in the command"])}


def test_one_container_in_two_places_becomes_two() -> None:
    harness = Harness()
    with harness.command() as fields:
        fields.nested["a"] = {"in": [1]}
    with harness.command() as fields:
        fields.nested["b"] = fields.nested["a"]
    with harness.command() as fields:
        fields.nested["a"]["in"].append(2)
    assert harness.plain()["nested"] == {"a": {"in": [1, 2]}, "b": {"in": [1]}} == harness.machine.fields()["nested"]


def run_both(fields: Any, change: Callable[[Any], None]) -> None:
    fields.counts["b"] = 1
    change(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.counts.__setitem__("a", "text"),
        lambda fields: fields.counts.__setitem__("a", True),
        lambda fields: fields.counts.__setitem__(1, 1),
        lambda fields: fields.queue.append(None),
        lambda fields: fields.queue.extend(["x"]),
        lambda fields: fields.rows.append(["x"]),
        lambda fields: fields.nested.__setitem__("a", {"in": ["x"]}),
        lambda fields: fields.tags.add(b"bytes"),
        lambda fields: setattr(fields, "number", "text"),
        lambda fields: setattr(fields, "counts", {"a": "text"}),
        lambda fields: setattr(fields, "another", 1),
        lambda fields: fields.jobs.__setitem__("a", Note("not a job")),
        lambda fields: setattr(fields.first, "steps", 5),
        lambda fields: delattr(fields, "number"),
    ],
)
def test_a_value_of_a_wrong_type_is_an_error_of_the_command_and_is_undone(change: Callable[[Any], None]) -> None:
    harness = Harness()
    before = harness.plain()
    with pytest.raises(TypeError), harness.command() as fields:
        run_both(fields, change)
    assert harness.plain() == before == harness.machine.fields()


def test_a_number_of_more_than_64_bits_is_an_error_of_the_command() -> None:
    harness = Harness()
    with pytest.raises(OverflowError), harness.command() as fields:
        fields.counts["a"] = 1 << 64
    with pytest.raises(OverflowError), harness.command() as fields:
        fields.number = -(1 << 64)
    assert harness.machine.fields()["counts"] == {}


def test_a_whole_number_in_a_field_of_fractions_is_a_fraction_at_once() -> None:
    harness = Harness()
    with harness.command() as fields:
        fields.share = 1
        assert type(fields.share) is float
