"""History: the append-only log of each execution, its fold, and snapshots of that fold.

Sequences are dense from 1 and given out under the execution's lock. Kinds are open strings and bodies opaque JSON: what
we do not know is kept for ever. A snapshot is the fold of the log at a sequence; replay after a snapshot equals replay
from the start. Each so many events, or bytes of their bodies, one is kept by itself, which adds nothing to the log, and
the last few stay: as the definition says, which a run is pinned to when it starts. Events of its own:
`snapshot.written`, for each snapshot that was asked for.
"""
