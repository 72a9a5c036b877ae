"""Local commands: they concern one connection or this replica, and are answered without replication.

Their answers and errors are those of Redis. Commands on the data are in `machines/kv`.
"""

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import COMMANDS, Command, KeyAccess, Touched, wrong_number
from pydsm.machines.kv.command import NO_KEYS, integer
from pydsm.machines.kv.glob import matcher
from pydsm.server.limits import RespLimits
from pydsm.server.session import Session, is_one_word
from pydsm.server.transactions import TRANSACTION_COMMANDS, TransactionCommand
from pydsm.version import __version__

Words = Sequence[bytes]

REDIS_VERSION = "7.4.0"
"""The version of Redis that the commands follow."""

_ANY = 1 << 30
_UNKNOWN_ARGUMENTS_BYTES_MAX = 128
_PATTERN_CHARACTERS = re.compile(rb"[*?\[]")


class CommandContext(Protocol):
    """The server, as far as commands use it."""

    limits: RespLimits

    @property
    def connections_max(self) -> int:
        """Maximum number of clients at a time."""
        ...

    def sessions(self) -> Sequence[Session]:
        """Sessions of the clients of this port, oldest first."""
        ...

    def info(self) -> dict[str, dict[str, str]]:
        """The sections of INFO."""
        ...

    def now_seconds(self) -> float:
        """The time in seconds on the event loop's clock."""
        ...


@dataclass(frozen=True, slots=True)
class LocalCommand:
    """A command that is answered immediately. Counts of words include the name, and the subcommand if it is one."""

    run: Callable[[CommandContext, Session, Words], Result]
    words_min: int
    words_max: int
    summary: str = ""

    def takes(self, words: int) -> bool:
        """Whether a command may have this many words."""
        return self.words_min <= words <= self.words_max


def execute(local: LocalCommand, name: str, server: CommandContext, session: Session, words: Words) -> Result:
    """The answer to a command; a CommandFailed when it is refused."""
    if not local.takes(len(words)):
        return CommandFailed(wrong_number(name))
    try:
        return local.run(server, session, words)
    except CommandFailed as failed:
        return CommandFailed(failed.message)  # without its traceback, which holds this frame


def unknown_command(words: Words) -> CommandFailed:
    """Redis's error for an unknown command."""
    arguments = ""
    for word in words[1:]:
        if len(arguments) >= _UNKNOWN_ARGUMENTS_BYTES_MAX:
            break
        arguments += f"'{_shown(word)[: _UNKNOWN_ARGUMENTS_BYTES_MAX - len(arguments)]}' "
    name = _shown(words[0])[:_UNKNOWN_ARGUMENTS_BYTES_MAX]
    return CommandFailed(f"ERR unknown command '{name}', with args beginning with: {arguments}")


def _shown(word: bytes) -> str:
    return word[:_UNKNOWN_ARGUMENTS_BYTES_MAX].decode(errors="backslashreplace")


def _of_subcommands(
    name: str, table: Mapping[bytes, LocalCommand]
) -> Callable[[CommandContext, Session, Words], Result]:
    """A command with subcommands."""

    def run(server: CommandContext, session: Session, words: Words) -> Result:
        local = table.get(words[1].upper())
        if local is None:
            raise CommandFailed(f"ERR unknown subcommand '{_shown(words[1])}'. Try {name} HELP.")
        return execute(local, f"{name}|{words[1].decode().lower()}", server, session, words)

    return run


# The connection


def _ping(server: CommandContext, session: Session, words: Words) -> Result:
    return words[1] if len(words) == 2 else "PONG"


def _echo(server: CommandContext, session: Session, words: Words) -> Result:
    return words[1]


def _quit(server: CommandContext, session: Session, words: Words) -> Result:
    session.leaving = True
    return "OK"


def _reset(server: CommandContext, session: Session, words: Words) -> Result:
    session.reset()
    return "RESET"


def _select(server: CommandContext, session: Session, words: Words) -> Result:
    if integer(words[1]) != 0:
        raise CommandFailed("ERR DB index is out of range")
    return "OK"


def _auth(server: CommandContext, session: Session, words: Words) -> Result:
    if len(words) > 3:
        raise CommandFailed("ERR syntax error")
    if len(words) == 2:
        raise CommandFailed(
            "ERR AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    _check_user(words[1])
    return "OK"


def _check_user(user: bytes) -> None:
    if user != b"default":
        raise CommandFailed("WRONGPASS invalid username-password pair or user is disabled.")


def _hello(server: CommandContext, session: Session, words: Words) -> Result:
    protocol, name = session.protocol, session.name
    if len(words) > 1:
        try:
            protocol = integer(words[1])
        except CommandFailed:
            raise CommandFailed("ERR Protocol version is not an integer or out of range") from None
        if protocol not in {2, 3}:
            raise CommandFailed("NOPROTO unsupported protocol version")
    position = 2
    while position < len(words):
        option = words[position].upper()
        if option == b"AUTH" and position + 2 < len(words):
            _check_user(words[position + 1])
            position += 3
        elif option == b"SETNAME" and position + 1 < len(words):
            name = _checked_name(words[position + 1])
            position += 2
        else:
            raise CommandFailed(f"ERR Syntax error in HELLO option '{_shown(words[position])}'")
    session.protocol, session.name = protocol, name
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION.encode(),
        b"proto": protocol,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


# CLIENT

_CLIENT_TYPES = frozenset((b"normal", b"master", b"replica", b"slave", b"pubsub"))


def _checked_name(name: bytes) -> bytes:
    if not is_one_word(name):
        raise CommandFailed("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def _client_setname(server: CommandContext, session: Session, words: Words) -> Result:
    session.name = _checked_name(words[2])
    return "OK"


def _client_getname(server: CommandContext, session: Session, words: Words) -> Result:
    return session.name or None


def _client_setinfo(server: CommandContext, session: Session, words: Words) -> Result:
    attribute = words[2].lower()
    if attribute not in {b"lib-name", b"lib-ver"}:
        raise CommandFailed(f"ERR Unrecognized option '{_shown(words[2])}'")
    if not is_one_word(words[3]):
        raise CommandFailed(f"ERR {attribute.decode()} cannot contain spaces, newlines or special characters.")
    if attribute == b"lib-name":
        session.library_name = words[3]
    else:
        session.library_version = words[3]
    return "OK"


def _client_id(server: CommandContext, session: Session, words: Words) -> Result:
    return session.id


def _client_info(server: CommandContext, session: Session, words: Words) -> Result:
    return f"{session.describe(server.now_seconds())}\n".encode()


def _client_list(server: CommandContext, session: Session, words: Words) -> Result:
    """All clients, those of a TYPE, or those with an ID that is listed."""
    chosen = server.sessions()
    match [words[2].upper() if len(words) > 2 else b"", *words[3:]]:
        case [b""]:
            pass
        case [b"TYPE", kind]:
            if kind.lower() not in _CLIENT_TYPES:
                raise CommandFailed(f"ERR Unknown client type '{_shown(kind)}'")
            chosen = chosen if kind.lower() == b"normal" else ()
        case [b"ID", _, *_]:
            ids = {_client_number(word) for word in words[3:]}
            chosen = [one for one in chosen if one.id in ids]
        case _:
            raise CommandFailed("ERR syntax error")
    now = server.now_seconds()
    return "".join(f"{one.describe(now)}\n" for one in chosen).encode()


def _client_number(word: bytes) -> int:
    try:
        return integer(word)
    except CommandFailed:
        raise CommandFailed("ERR Invalid client ID") from None


def _client_switch(server: CommandContext, session: Session, words: Words) -> Result:
    """NO-EVICT and NO-TOUCH: without effect, since no key is ever evicted."""
    if words[2].upper() not in {b"ON", b"OFF"}:
        raise CommandFailed("ERR syntax error")
    return "OK"


_CLIENT = {
    b"SETNAME": LocalCommand(_client_setname, 3, 3),
    b"GETNAME": LocalCommand(_client_getname, 2, 2),
    b"SETINFO": LocalCommand(_client_setinfo, 4, 4),
    b"ID": LocalCommand(_client_id, 2, 2),
    b"INFO": LocalCommand(_client_info, 2, 2),
    b"LIST": LocalCommand(_client_list, 2, _ANY),
    b"NO-EVICT": LocalCommand(_client_switch, 3, 3),
    b"NO-TOUCH": LocalCommand(_client_switch, 3, 3),
}


# This replica


def _info(server: CommandContext, session: Session, words: Words) -> Result:
    sections: dict[str, dict[str, str]] = {
        "Server": {
            "redis_version": REDIS_VERSION,
            "pydsm_version": __version__,
            "redis_mode": "standalone",
            "os": f"{platform.system()} {platform.machine()}",
        },
        "Clients": {"connected_clients": str(len(server.sessions())), "maxclients": str(server.connections_max)},
        "Replication": {"role": "master", "connected_slaves": "0"},
        **server.info(),
    }
    wanted = {word.decode(errors="replace").lower() for word in words[1:]}
    everything = not wanted or bool(wanted & {"all", "default", "everything"})
    return "\r\n".join(
        f"# {title}\r\n" + "".join(f"{key}:{_one_line(value)}\r\n" for key, value in pairs.items())
        for title, pairs in sections.items()
        if everything or title.lower() in wanted
    ).encode()


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _config_get(server: CommandContext, session: Session, words: Words) -> Result:
    settings = {
        "appendonly": "no",
        "databases": "1",
        "maxclients": str(server.connections_max),
        "proto-max-bulk-len": str(server.limits.bulk_bytes_max),
        "client-query-buffer-limit": str(server.limits.query_buffer_bytes_max),
        "save": "",
        "timeout": "0",
    }
    matches = [_setting_matcher(word) for word in words[2:]]
    return {
        name.encode(): value.encode()
        for name, value in settings.items()
        if any(match(name.encode()) for match in matches)
    }


def _setting_matcher(word: bytes) -> Callable[[bytes], bool]:
    """A function that matches names of settings. As in Redis, a word with one of `*?[` is a pattern."""
    if _PATTERN_CHARACTERS.search(word):
        return matcher(word, ignore_case=True)
    name = word.lower()
    return lambda text: text == name


_CONFIG = {b"GET": LocalCommand(_config_get, 3, _ANY)}


# COMMAND


def _command(server: CommandContext, session: Session, words: Words) -> Result:
    return [_description(name) for name in _all_names()]


def _command_count(server: CommandContext, session: Session, words: Words) -> Result:
    return len(_all_names())


def _command_info(server: CommandContext, session: Session, words: Words) -> Result:
    names = [word.upper() for word in words[2:]] or _all_names()
    return [_description(name) if _row(name) is not None else None for name in names]


def _command_docs(server: CommandContext, session: Session, words: Words) -> Result:
    names = [word.upper() for word in words[2:]] or _all_names()
    return {
        name.lower(): {b"summary": row.summary.encode(), b"group": _group(name)}
        for name in names
        if (row := _row(name)) is not None
    }


def _row(name: bytes) -> Command | LocalCommand | TransactionCommand | None:
    return COMMANDS.get(name) or LOCAL_COMMANDS.get(name) or TRANSACTION_COMMANDS.get(name)


def _group(name: bytes) -> bytes:
    if name in COMMANDS:
        return COMMANDS[name].group.encode()
    return b"transactions" if name in TRANSACTION_COMMANDS else b"connection"


def _all_names() -> list[bytes]:
    return [*COMMANDS, *LOCAL_COMMANDS, *TRANSACTION_COMMANDS]


def _description(name: bytes) -> Result:
    """Name, arity, flags, first key, last key, step; and the three lists that Redis adds since version 7."""
    row = _row(name)
    assert row is not None, "asked for the description of an unknown command"
    if not isinstance(row, Command):
        return [name.lower(), _arity(row), ["loading", "stale", "fast"], 0, 0, 0, [], [], [], []]
    flags = ["readonly" if row.access in {KeyAccess.READ, KeyAccess.READ_ALL} else "write"]
    if row.keys == NO_KEYS and row.touched is not None:
        flags.append("movablekeys")
    return [name.lower(), _arity(row), flags, *_key_positions(row.keys), [], [], [], []]


def _arity(row: Command | LocalCommand | TransactionCommand) -> int:
    return row.words_min if row.words_min == row.words_max else -row.words_min


def _key_positions(keys: slice) -> tuple[int, int, int]:
    if keys.stop is None:
        return keys.start, -1, keys.step or 1
    return (keys.start, keys.stop - 1, 1) if keys.stop > keys.start else (0, 0, 0)


def _command_getkeys(server: CommandContext, session: Session, words: Words) -> Result:
    command = _row(words[2].upper())
    if command is None:
        raise CommandFailed("ERR Invalid command specified")
    if not command.takes(len(words) - 2):
        raise CommandFailed("ERR Invalid number of arguments specified for command")
    touched = command.touches(words[2:]) if isinstance(command, Command) else Touched()
    keys = frozenset((*touched.writes, *touched.reads))
    if not keys:
        raise CommandFailed("ERR The command has no key arguments")
    return [word for word in dict.fromkeys(words[3:]) if word in keys]


_COMMAND = {
    b"GETKEYS": LocalCommand(_command_getkeys, 3, _ANY),
    b"COUNT": LocalCommand(_command_count, 2, 2),
    b"INFO": LocalCommand(_command_info, 2, _ANY),
    b"DOCS": LocalCommand(_command_docs, 2, _ANY),
}
_command_with_subcommand = _of_subcommands("COMMAND", _COMMAND)


def _command_or_subcommand(server: CommandContext, session: Session, words: Words) -> Result:
    run = _command if len(words) == 1 else _command_with_subcommand
    return run(server, session, words)


LOCAL_COMMANDS = {
    b"PING": LocalCommand(_ping, 1, 2, "Answers PONG, or its argument."),
    b"ECHO": LocalCommand(_echo, 2, 2, "Answers its argument."),
    b"QUIT": LocalCommand(_quit, 1, _ANY, "Closes the connection after the replies to earlier commands."),
    b"RESET": LocalCommand(_reset, 1, 1, "Resets the connection to its state after connecting."),
    b"SELECT": LocalCommand(_select, 2, 2, "Selects a database; only 0 exists."),
    b"AUTH": LocalCommand(_auth, 2, _ANY, "Accepts the user default, who has no password."),
    b"HELLO": LocalCommand(_hello, 1, _ANY, "Selects RESP2 or RESP3, and describes the server."),
    b"CLIENT": LocalCommand(
        _of_subcommands("CLIENT", _CLIENT), 2, _ANY, "Lists connections, and sets the name of this one."
    ),
    b"INFO": LocalCommand(_info, 1, _ANY, "Describes this replica."),
    b"CONFIG": LocalCommand(_of_subcommands("CONFIG", _CONFIG), 2, _ANY, "Returns settings of the Redis port."),
    b"COMMAND": LocalCommand(_command_or_subcommand, 1, _ANY, "Describes the commands."),
}
"""By name in capitals."""
