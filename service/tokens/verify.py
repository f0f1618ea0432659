"""The proof that a presented secret is the right one: reject tag, match cache, and at last argon2id, off the loop.

A wrong secret ends at the tag, in microseconds; argon2 runs only for a right one that was not seen lately. An unknown
id is held against a tag that nobody has: there is no dummy argon2, which would be a free denial of service. Whoever
has stolen the store can look for a wrong secret with the right tag; argon2 refuses it, once, and that is remembered.
"""

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from hmac import compare_digest
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import verify_secret
from msgspec import Struct

from service.errors import StateError
from service.tokens.matches import Matches
from service.tokens.secret import Presented, reject_tag

T = TypeVar("T")
Flight = tuple[bytes, str]  # the digest of what is presented, and the verifier that it is held against


class Parameters(Struct, frozen=True):
    """The cost of argon2id. The secret has 256 random bits already, so this is the cheap end of what is advised."""

    memory_kib: int = 19456
    time: int = 2
    lanes: int = 1


USUAL = Parameters()
NO_TAG = bytes(4)
"""What the secret of an unknown id is held against, so that its refusal takes as long as a wrong secret's."""
WRONG_MAX = 1_000


def derive(secret: str, parameters: Parameters) -> str:
    """A new verifier of `secret`: an encoded argon2id hash that carries its salt and parameters. Takes milliseconds."""
    return _hasher(parameters).hash(secret)


def check(secret: str, verifier: str) -> bool:
    """Whether `secret` is what `verifier` was derived from. Takes milliseconds; raises for a broken verifier."""
    try:
        return verify_secret(verifier.encode(), secret.encode(), Type.ID)
    except VerifyMismatchError:
        return False
    except VerificationError as error:
        raise StateError("server/error", "The stored verifier of this token is unusable.") from error


def needs_rehash(verifier: str, parameters: Parameters) -> bool:
    """Whether `verifier` was derived with other parameters, or by another scheme, than `derive` would use now."""
    try:
        return _hasher(parameters).check_needs_rehash(verifier)
    except InvalidHashError:
        return True


class Verifier:
    """Says whether a secret matches, with at most `workers` argon2 at a time and `waiting` more in the queue.

    Half of the queue is kept for proofs: minting, which derives, never crowds out those who have a token already. And
    whoever asks (`whom`: the source, the tenant) has at most as many places as are still free: one alone takes half of
    them, and the next finds some. Belongs to one event loop. `clock` gives monotonic seconds; `check` stands in for
    argon2 in tests.
    """

    def __init__(
        self,
        parameters: Parameters = USUAL,
        *,
        workers: int | None = None,
        waiting: int = 64,
        entries: int = 10_000,
        idle_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        check: Callable[[str, str], bool] = check,
    ) -> None:
        workers = workers or min(2, os.cpu_count() or 1)
        self.parameters = parameters
        self._clock = clock
        self._check = check
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._room = workers + waiting
        self._kept = waiting // 2
        self._taken: Counter[str] = Counter()
        self._open = True
        self._keyed = blake2b(digest_size=32, key=secrets.token_bytes(32))
        self._cache = Matches(entries, idle_s)
        self._wrong = Matches(WRONG_MAX, idle_s)
        self._flights: dict[Flight, asyncio.Future[bool]] = {}

    def seen(self, presented: Presented, tag: bytes, verifier: str) -> bool | None:
        """The answer if argon2 is not needed: False for a wrong tag, what argon2 said lately, else None."""
        if not compare_digest(reject_tag(presented.id, presented.secret), tag):
            return False
        digest, now = self._digest(presented), self._clock()
        if self._wrong.holds(digest, verifier, now):
            return False
        return self._cache.holds(digest, verifier, now) or None

    def refuse(self, presented: Presented) -> bool:
        """False for an unknown id, after the work that a wrong secret takes."""
        self.seen(presented, NO_TAG, "")
        return False

    async def matches(self, presented: Presented, tag: bytes, verifier: str, whom: Sequence[str] = ()) -> bool:
        """Whether the secret is the one behind `tag` and `verifier`; says nothing of status, role or tenant.

        All who wait for the same proof share one argon2, and any of them may give up without harm to the others.
        Raises `auth/busy` when the queue is full, or one of `whom` has its share of it.
        """
        known = self.seen(presented, tag, verifier)
        if known is not None:
            return known
        key = (self._digest(presented), verifier)
        flight = self._flights.get(key) or self._take_off(key, presented, whom)
        return await asyncio.shield(flight)

    async def derive(self, secret: str, whom: Sequence[str] = ()) -> str:
        """A new verifier of `secret`, under the same bound as `matches`, half the queue sooner."""
        return await asyncio.shield(self._submit(self._kept, whom, partial(derive, secret, self.parameters)))

    def forget(self, id: str) -> None:
        """Let go of what is known of secrets of the token `id`. Tidiness only: revocation is the row's word."""
        self._cache.forget(id)
        self._wrong.forget(id)

    def close(self) -> None:
        """Begin nothing more; what is under way or queued still gets its answer. Does not wait."""
        self._open = False
        self._threads.shutdown(wait=False)

    def _digest(self, presented: Presented) -> bytes:
        """A name for the presented id and secret that means nothing outside this process."""
        digest = self._keyed.copy()
        digest.update((presented.id + presented.secret).encode())
        return digest.digest()

    def _take_off(self, key: Flight, presented: Presented, whom: Sequence[str]) -> asyncio.Future[bool]:
        flight = self._submit(0, whom, partial(self._check, presented.secret, key[1]))
        self._flights[key] = flight
        flight.add_done_callback(partial(self._land, key, presented.id))
        return flight

    def _land(self, key: Flight, id: str, flight: asyncio.Future[bool]) -> None:
        """Runs before the waiters go on, so whoever comes next finds either the flight or the proof."""
        del self._flights[key]
        if not flight.cancelled() and flight.exception() is None:
            memory = self._cache if flight.result() else self._wrong
            memory.remember(key[0], id, key[1], self._clock())

    def _submit(self, kept: int, whom: Sequence[str], work: Callable[[], T]) -> asyncio.Future[T]:
        """Queue `work` for a thread, `kept` places left alone. Await shielded: its place is free when the work ends,
        not when a waiter goes."""
        if not self._open:
            raise StateError("server/draining", "No token can be verified while the server shuts down.", retry_after=1)
        if self._room - kept <= max((self._taken[one] for one in whom), default=0):
            raise StateError("auth/busy", "Too many tokens wait to be verified; try again in a second.", retry_after=1)
        job = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._room -= 1
        self._taken.update(whom)
        job.add_done_callback(partial(self._leave, whom))
        return job

    def _leave(self, whom: Sequence[str], _job: asyncio.Future[T]) -> None:
        self._room += 1
        for one in whom:
            self._taken[one] -= 1
            if not self._taken[one]:
                del self._taken[one]


def _hasher(parameters: Parameters) -> PasswordHasher:
    return PasswordHasher(parameters.time, parameters.memory_kib, parameters.lanes, type=Type.ID)
