"""Groups of near-identical images, from 64-bit perceptual hashes that differ in few bits.

Two hashes within distance d differ in at most d of the m parts into which their bits are cut, so they agree in at least m - d parts. For
every choice of r = m - d parts, hashes are sorted by those, and neighbours that agree there are compared in full: multi-index hashing
(Norouzi, Punjani & Fleet 2012) with several parts to a key, after Manku, Jain & Das Sarma (2007, "Detecting near-duplicates for web
crawling"). No pair within d is missed. Groups are the connected components: what is near to a member is in the group.
"""

from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from vlm.statistics.distributions import IntArray

BITS = 64
FARTHEST = 12
ENOUGH_EDGES = 1 << 20

Hashes = npt.NDArray[np.uint64]


def duplicate_groups(hashes: Hashes, distance: int = 4) -> IntArray:
    """Return each hash's group: the lowest row in it, or -1 where it has no near neighbour.

    ``distance`` is the number of bits, at most FARTHEST, in which two may differ.
    """
    if not 0 <= distance <= FARTHEST:
        raise ValueError(f"The distance is from 0 to {FARTHEST} bits.")
    hashes = np.asarray(hashes, dtype=np.uint64)
    if not len(hashes):
        return np.zeros(0, dtype=np.int64)
    distinct, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    root = _components(distinct, distance)
    # A component is named by its lowest row among the hashes as they came.
    lowest = np.full(len(distinct), len(hashes), dtype=np.int64)
    np.minimum.at(lowest, root, first)
    group = lowest[root][place]
    sizes = np.bincount(group, minlength=len(hashes))
    return np.where(sizes[group] > 1, group, -1)


def _components(hashes: Hashes, distance: int) -> IntArray:
    """Return the root of each distinct hash's component."""
    root = np.arange(len(hashes))
    if distance == 0 or len(hashes) < 2:
        return root
    parts, chosen = _cut(len(hashes), distance)
    masks = _masks(hashes, parts)
    for some in combinations(range(parts), chosen):
        mask = np.bitwise_or.reduce(masks[list(some)])
        key = hashes & mask
        order = np.argsort(key, kind="stable")
        root = _join_neighbours(hashes[order], key[order], order, root, distance)
    return root


def _join_neighbours(hashes: Hashes, key: Hashes, rows: IntArray, root: IntArray, distance: int) -> IntArray:
    """Compare all pairs that share a key, at growing distance in sorted order, and join those that are near."""
    place = np.flatnonzero(key[1:] == key[:-1])
    step = 1
    first: list[IntArray] = []
    second: list[IntArray] = []
    waiting = 0
    while place.size:
        near = place[np.bitwise_count(hashes[place] ^ hashes[place + step]) <= distance]
        if near.size:
            a, b = rows[near], rows[near + step]
            apart = root[a] != root[b]
            first.append(a[apart])
            second.append(b[apart])
            waiting += int(apart.sum())
            if waiting >= ENOUGH_EDGES:
                root = _joined(root, np.concatenate(first), np.concatenate(second))
                first, second, waiting = [], [], 0
        step += 1
        place = place[place + step < len(key)]
        place = place[key[place] == key[place + step]]
    return _joined(root, np.concatenate(first), np.concatenate(second)) if waiting else root


def _joined(root: IntArray, first: IntArray, second: IntArray) -> IntArray:
    """Join components along edges: roots are hung under lower roots and paths are halved until nothing moves (Shiloach & Vishkin 1982)."""
    root = root.copy()
    while True:
        a, b = root[first], root[second]
        apart = a != b
        if not apart.any():
            return root
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above


def _cut(count: int, distance: int) -> tuple[int, int]:
    """Return into how many parts to cut, and how many of them make a key: what costs least for ``count`` evenly spread hashes.

    A sorted pass costs about as much as three comparisons a hash; each key of b bits leaves count/2^b neighbours to compare.
    """
    ways = []
    for chosen in range(1, 5):
        parts = distance + chosen
        bits = BITS * chosen / parts
        ways.append((comb(parts, chosen) * (3 + count / 2 ** (bits + 1)), parts, chosen))
    _, parts, chosen = min(ways)
    return parts, chosen


def _masks(hashes: Hashes, parts: int) -> Hashes:
    """Deal the bits out to parts, the most telling ones first: bits that are nearly always the same split nothing."""
    places = np.arange(BITS, dtype=np.uint64)
    sample = hashes[:: max(1, len(hashes) // 10_000)]
    shares = np.array([((sample >> place) & np.uint64(1)).mean() for place in places])
    masks = np.zeros(parts, dtype=np.uint64)
    for nth, place in enumerate(np.argsort(np.abs(shares - 0.5), kind="stable")):
        masks[nth % parts] |= np.uint64(1) << np.uint64(place)
    return masks
