"""What was proven lately: this secret matches this verifier. Never a status, role or tenant, and never the secret."""

from collections import OrderedDict


class Match:
    """One proof: the token's public id, the verifier that the secret matched, and when it was last of use."""

    __slots__ = ("id", "used_at", "verifier")

    def __init__(self, id: str, verifier: str, used_at: float) -> None:
        self.id = id
        self.verifier = verifier
        self.used_at = used_at


class Matches:
    """At most `limit` proofs under keyed digests; the least recently used goes first, an unused one after `idle_s`.

    `now` is seconds of a monotonic clock, never going back. A digest must reveal nothing without its key.
    """

    def __init__(self, limit: int, idle_s: float) -> None:
        self._limit = limit
        self._idle_s = idle_s
        self._by_digest: OrderedDict[bytes, Match] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_digest)

    def holds(self, digest: bytes, verifier: str, now: float) -> bool:
        """Whether the proof is here, fresh, and of this very verifier; being asked for keeps it fresh."""
        match = self._by_digest.get(digest)
        if match is None or match.verifier != verifier or now - match.used_at >= self._idle_s:
            return False
        match.used_at = now
        self._by_digest.move_to_end(digest)
        return True

    def remember(self, digest: bytes, id: str, verifier: str, now: float) -> None:
        """Keep the proof, in place of an older one of the same digest; drop what is idle or too much."""
        self._by_digest[digest] = Match(id, verifier, now)
        self._by_digest.move_to_end(digest)
        self._sweep(now)

    def forget(self, id: str) -> None:
        """Drop every proof of the token `id`: a walk over all of them, for revocations, not for requests."""
        for digest in [digest for digest, match in self._by_digest.items() if match.id == id]:
            del self._by_digest[digest]

    def _sweep(self, now: float) -> None:
        """The order of entries is the order of use, so the idle ones are in front."""
        while self._by_digest:
            oldest = next(iter(self._by_digest.values()))
            if len(self._by_digest) <= self._limit and now - oldest.used_at < self._idle_s:
                return
            self._by_digest.popitem(last=False)
