"""What hypothesis draws for the broker: names, trees of arrays, and every message of the closed union."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from broker import messages as m
from broker.arrays import BFloat16
from broker.layouts import DTYPES
from broker.wire import Identity

# The machine may be shared with a whole run: an example that takes long is not a failure.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

TOKEN = "0123456789abcdef" * 2
OTHER_TOKEN = "f" * 32


def incarnation(age: int) -> str:
    """The `age`-th incarnation: greater is newer."""
    return f"{age:016x}{0:016x}"


def identity(name: str, age: int = 1, token: str = TOKEN) -> Identity:
    return Identity(token, name, incarnation(age))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = text.filter(lambda key: not key.startswith("\0"))
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray | BFloat16:
    name = draw(st.sampled_from(sorted(DTYPES)))
    array = draw(hnp.arrays(DTYPES[name], draw(shapes)))
    if draw(st.booleans()) and array.ndim > 1:
        array = array.T  # not contiguous
    return BFloat16(array) if name == "bfloat16" else array


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | text
trees = st.recursive(
    plain | arrays(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)

counts = st.integers(0, 2**63 - 1)
ones = st.integers(1, 2**63 - 1)
names = st.from_regex(r"\A[A-Za-z0-9_.-]{1,64}\Z")
addresses = st.sampled_from(["ipc:///run/a b/l0", "tcp://127.0.0.1:7400", "http://[::1]:80/v1"])
incarnations = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")
digests = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")
sha256s = st.integers(0, 2**256 - 1).map(lambda n: f"{n:064x}")
versions = st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
finite = st.floats(allow_nan=False)
maybe = st.none


def some(strategy: st.SearchStrategy, most: int = 4, least: int = 0) -> st.SearchStrategy[tuple]:
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


roles = st.sampled_from(["launcher", "tracker", "learner", "actor", "dashboard"])
phases = st.sampled_from(["starting", "running", "stopping", "ended"])
notes = st.dictionaries(text, plain, max_size=3)
items = st.builds(
    m.FragmentItem,
    sequence=ones,
    version=versions,
    crc=counts,
    steps=st.integers(0, m.MAX_STEPS - 1),
    task=maybe() | text,
    minted=st.booleans(),
    note=maybe() | notes,
)
counters = st.builds(
    m.SpokeCounters,
    incarnation=incarnations,
    settled=counts,
    received=counts,
    durable=counts,
    layouts=some(digests),
    offer=counts,
    chunks=counts,
    offer_state=st.sampled_from(["none", "fetching", "durable", "refused"]),
    lost=counts,
)
entries = st.builds(
    m.DirectoryEntry, name=names, role=roles, policy=maybe() | names, address=addresses, incarnation=incarnations
)
chunks = st.builds(m.Chunk, offer=counts, index=counts)

TO_HUB = {
    m.Hello: st.builds(
        m.Hello,
        role=roles,
        pid=counts,
        host=text,
        address=maybe() | addresses,
        policy=maybe() | names,
        sent_through=counts,
        blocked=st.booleans(),
        version=maybe() | versions,
    ),
    m.Fragments: st.builds(m.Fragments, layout=digests, define=plain, items=some(items, least=1)),
    m.Facts: st.builds(m.Facts, first=ones, items=some(st.tuples(counts, names, text))),
    m.Status: st.builds(
        m.Status,
        doing=text,
        waits=some(st.tuples(names, text, finite)),
        rates=st.dictionaries(names, maybe() | finite | st.integers(-(2**63), 2**64 - 1), max_size=4),
    ),
    m.TaskRequest: st.builds(
        m.TaskRequest, request=ones, count=st.integers(1, 1024), policy=maybe() | names, generate=st.booleans()
    ),
    m.CheckpointOffer: st.builds(
        m.CheckpointOffer,
        offer=ones,
        policy=names,
        version=versions,
        size=st.integers(1, 2**40 - 1),
        sha256=sha256s,
        score=maybe() | finite,
    ),
    m.Chunk: chunks,
    m.RestoreRequest: st.builds(m.RestoreRequest, policy=names, position=maybe() | counts, index=maybe() | counts),
    m.Farewell: st.builds(m.Farewell, reason=text, sent_through=counts),
}
TO_SPOKE = {
    m.Pulse: st.builds(
        m.Pulse, phase=phases, reason=text, version=maybe() | versions, crc=counts, spoke=maybe() | counters
    ),
    m.Parameters: st.builds(m.Parameters, policy=names, version=versions, crc=counts, layout=plain),
    m.Directory: st.builds(m.Directory, entries=some(entries)),
    m.Assignment: st.builds(
        m.Assignment,
        incarnation=incarnations,
        request=ones,
        seconds=finite,
        tasks=some(
            st.builds(
                m.LeasedTask,
                task=text,
                policy=maybe() | names,
                body=text,
                label=maybe() | text,
                draw=maybe() | counts,
                generate=st.booleans(),
            )
        ),
    ),
    m.RestorePoint: st.builds(
        m.RestorePoint,
        policy=names,
        incarnation=incarnations,
        life=counts,
        position=counts,
        version=maybe() | versions,
        size=counts,
        sha256=st.just("") | sha256s,
        seen=maybe() | versions,
        skipped=some(text),
    ),
    m.Chunk: chunks,
    m.Standings: st.builds(m.Standings),
}
