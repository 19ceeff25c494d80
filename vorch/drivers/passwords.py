"""Passwords by argon2id: a hash says itself by which settings it was made."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vorch.errors import BadConfig, TimedOut

if TYPE_CHECKING:
    from argon2 import PasswordHasher

# Each takes its memory and a processor for a moment; strangers must not have many at once.
AT_ONCE = 2
PATIENCE_S = 10.0


class Argon2Passwords:
    def __init__(self, *, memory_mib: int, rounds: int) -> None:
        if rounds < 1 or memory_mib < 1:
            raise BadConfig(
                f"cannot hash passwords with {memory_mib} MiB in {rounds} rounds: both must be at"
                " least 1; see password_memory_mib and password_rounds"
            )
        self._memory_mib = memory_mib
        self._rounds = rounds
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def _hasher(self) -> PasswordHasher:
        # Loaded with the first password: a command that has none does without.
        from argon2 import PasswordHasher

        return PasswordHasher(
            time_cost=self._rounds, memory_cost=self._memory_mib * 1024, parallelism=1
        )

    def hash(self, password: str) -> str:
        with self._turn():
            return self._hasher().hash(password)

    def matches(self, hashed: str, password: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        with self._turn():
            try:
                return self._hasher().verify(hashed, password)
            except (InvalidHashError, VerificationError):
                return False

    def outdated(self, hashed: str) -> bool:
        from argon2.exceptions import InvalidHashError

        try:
            return self._hasher().check_needs_rehash(hashed)
        except InvalidHashError:
            return True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=PATIENCE_S):
            raise TimedOut(
                "cannot look at that password: too many are being tried at this moment; try again"
            )
        try:
            yield
        finally:
            self._turns.release()
