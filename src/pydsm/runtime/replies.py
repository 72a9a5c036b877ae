"""The callbacks that receive the answers to submitted commands."""

from collections.abc import Callable, Sequence

from pydsm.client_protocol.answers import Answer

Reply = Callable[[Answer], None]
"""Receives the answer to one command. Exceptions that it raises are logged."""

ReplyMany = Callable[[int, Sequence[Answer]], None]
"""Receives answers to commands that were submitted together: the position of the first of these commands in the
submission, and the answers for it and the commands after it. Each command is answered exactly once; there is at least
one call for each batch that contains some of the commands. Exceptions that it raises are logged."""
