"""The encoded form of a call of one method, its keys, and its result.

A call is a MessagePack array: the tag of the method, its arguments in the order of its parameters, and random bits if
the class draws random numbers. Arguments and results are encoded from the annotations, and checked by decoding them.
"""

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from math import isfinite
from random import SystemRandom
from typing import Any

import msgspec

from pydsm.core.types.errors import UsageError
from pydsm.machines.declared.kinds import DeclarationError, encode, encode_canonical
from pydsm.machines.declared.methods import Everything, Keys, Method

ENTROPY = "random_bits_"
_entropy = SystemRandom()
_ATOMS = (type(None), bool, int, float, str, bytes)
_SEVERAL = (list, set, frozenset, dict)
_NEVER_FLOAT = (str, bytes, type(None), int)

KeysOf = Callable[[Any], Iterable[bytes]]
"""From a decoded call to its keys."""


class Signature:
    """How one method is called. Raises DeclarationError for types that cannot be encoded."""

    def __init__(
        self, method: Method[Any, Any, Any], where: str, hints: Mapping[str, Any], *, has_entropy: bool
    ) -> None:
        self.method = method
        self.where = where
        self._signature = inspect.signature(method.function)
        self._parameters = [one.name for one in list(self._signature.parameters.values())[1:]]
        self._hints = {name: hints[name] for name in self._parameters}
        self.result_type = hints.get("return", Any)
        fields: list[Any] = [(name, hints[name]) for name in self._parameters]
        if has_entropy:
            fields.append((ENTROPY, int, 0))
        try:
            self.struct = msgspec.defstruct(
                method.function.__name__, fields, array_like=True, frozen=True, tag=method.tag, gc=False
            )
            self._decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(self.struct).decode
            self.decode_result: Callable[[bytes], Any] = msgspec.msgpack.Decoder(self.result_type).decode
        except (TypeError, NameError) as error:
            raise DeclarationError(f"{where}: {error}") from None
        self._make = self._maker(has_entropy)
        self.run: Callable[[Any, Any], Any] = self._runner()
        atoms = {self.result_type} if self.result_type in _ATOMS else set()
        self.plain_results = frozenset(atoms)
        self._keys = {
            access: self._keys_of(declared)
            for access, declared in (
                ("reads", method.footprints.reads),
                ("writes", method.footprints.writes),
                ("updates", method.footprints.updates),
            )
            if declared is not None and not method.footprints.is_everything
        }
        self.reads = self._keys.get("reads")
        self.writes = self._keys.get("writes")
        self.updates = self._keys.get("updates")
        self.is_everything = method.footprints.is_everything
        self.kind = (method.footprints.kind or method.name).encode()

    @property
    def parameters(self) -> dict[str, Any]:
        """The types of the parameters."""
        return dict(self._hints)

    def encode(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> bytes:
        """A call as bytes. Raises TypeError for arguments that do not have the annotated types."""
        try:
            encoded = encode(self._make(*arguments, **named))
            self._decode(encoded)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise self._wrong(arguments, named, error) from None
        return encoded

    def with_bits(self, encoded: bytes, bits: int) -> bytes:
        """The same call with these random bits, 64 of them, if it has any: for tests that repeat."""
        call = self._decode(encoded)
        return encode(msgspec.structs.replace(call, **{ENTROPY: bits})) if hasattr(call, ENTROPY) else encoded

    def _wrong(self, arguments: tuple[Any, ...], named: dict[str, Any], error: Exception) -> TypeError:
        try:
            self._signature.bind(None, *arguments, **named)
        except TypeError as mismatch:
            return TypeError(f"{self.where}: {mismatch}")
        text = str(error)
        for place, name in enumerate(self._parameters):
            text = text.replace(f"`$[{place + 1}]", f"`{name}")
        return TypeError(f"{self.where}: {text[:1].lower()}{text[1:]}")

    def _maker(self, has_entropy: bool) -> Callable[..., Any]:
        """A function with the parameters and defaults of the method, which makes a call."""
        struct = self.struct
        if not has_entropy and not any(
            one.default is not one.empty or one.kind is one.KEYWORD_ONLY for one in self._signature.parameters.values()
        ):
            return struct

        def make(*arguments: Any, **named: Any) -> Any:
            bound = self._signature.bind(None, *arguments, **named)
            bound.apply_defaults()
            values = [bound.arguments[name] for name in self._parameters]
            return struct(*values, _entropy.getrandbits(64)) if has_entropy else struct(*values)

        return make

    def _runner(self) -> Callable[[Any, Any], Any]:
        """A function that calls the method of a machine with the arguments in a decoded call."""
        positional, keywords = [], []
        for one in list(self._signature.parameters.values())[1:]:
            if one.kind is one.KEYWORD_ONLY:
                keywords.append(f"{one.name}=call.{one.name}")
            else:
                positional.append(f"call.{one.name}")
        source = f"lambda machine, call: function({', '.join(['machine', *positional, *keywords])})"
        made: Callable[[Any, Any], Any] = eval(source, {"function": self.method.function})
        return made

    def _keys_of(self, declared: Keys) -> KeysOf:
        """From a decoded call to its keys; made so that the common case, one parameter, is fast."""
        if isinstance(declared, Everything):
            raise AssertionError("everything is no key")
        if callable(declared) and not isinstance(declared, str):
            return self._keys_by_function(declared)
        names = (declared,) if isinstance(declared, str) else tuple(declared)
        if len(names) == 1 and _is_simple(self._hints[names[0]]):
            of: KeysOf = eval(f"lambda call: (encode(call.{names[0]}),)", {"encode": encode})
            return of

        def keys(call: Any) -> list[bytes]:
            return [key for name in names for key in keys_in(getattr(call, name))]

        return keys

    def _keys_by_function(self, function: Callable[..., object]) -> KeysOf:
        wanted = list(inspect.signature(function).parameters)
        for name in wanted:
            if name not in self._parameters:
                raise DeclarationError(
                    f"{self.where}: the function of its keys takes {name}, which is not a parameter of the method"
                )

        def keys(call: Any) -> list[bytes]:
            try:
                return keys_in(function(**{name: getattr(call, name) for name in wanted}))
            except Exception as error:
                raise UsageError(
                    f"{self.where}: the function of its keys raised {type(error).__name__}: {error}"
                ) from error

        return keys


def keys_in(value: object) -> list[bytes]:
    """The keys that a value names: each item of a list or set and each key of a dict, or else the value itself."""
    return [_key(one) for one in value] if isinstance(value, _SEVERAL) else [_key(value)]


def _key(value: object) -> bytes:
    return encode_canonical(_as_key(value))


def _as_key(value: object) -> object:
    """Values that are one key of a dict become one value: 1, 1.0 and True."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float | Decimal):
        whole = int(value) if isfinite(value) else 0
        return whole if value == whole and abs(whole) < 1 << 63 else repr(float(value))
    return [_as_key(one) for one in value] if isinstance(value, tuple) else value


def _is_simple(of: Any) -> bool:
    """Whether a value of this type is one key, whose encoding no equal value of another type differs from."""
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if origin is typing.Annotated:
        return _is_simple(arguments[0])
    if isinstance(of, typing.NewType):
        return _is_simple(of.__supertype__)
    return of in _NEVER_FLOAT
