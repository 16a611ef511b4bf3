"""Groups of near-identical hashes, against comparing every pair."""

import numpy as np
import pytest

from vlm.statistics.distributions import IntArray
from vlm.statistics.duplicates import Hashes, duplicate_groups


def by_comparing_all(hashes: Hashes, distance: int) -> IntArray:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= distance
    group = np.arange(len(hashes))
    while True:
        lower = np.where(near, group[None, :], len(hashes)).min(axis=1)
        if np.array_equal(lower, group):
            break
        group = lower
    return np.where(np.bincount(group, minlength=len(hashes))[group] > 1, group, -1)


def flipped(hashes: Hashes, bits: int, chance: np.random.Generator) -> Hashes:
    found = hashes.copy()
    for _ in range(bits):
        found ^= np.uint64(1) << chance.integers(0, 64, len(hashes)).astype(np.uint64)
    return found


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 4, 6, 8, 10, 12])
def test_groups_are_those_of_comparing_every_pair(distance: int) -> None:
    for seed in range(4):
        chance = np.random.default_rng(seed)
        seeds = chance.integers(0, 2**63, 150, dtype=np.uint64)
        hashes = np.concatenate([seeds, seeds[:60], *(flipped(seeds[:80], bits, chance) for bits in (1, 3, 5, 8))])
        chance.shuffle(hashes)
        assert np.array_equal(duplicate_groups(hashes, distance), by_comparing_all(hashes, distance))


def test_hashes_that_are_alike_in_most_bits_are_grouped_too() -> None:
    """Hashes of flat pictures use few of their bits, and many are in one neighbourhood."""
    chance = np.random.default_rng(9)
    few = chance.integers(0, 2**14, 600, dtype=np.uint64)
    for distance in (1, 3):
        assert np.array_equal(duplicate_groups(few, distance), by_comparing_all(few, distance))
    same = np.zeros(1_000, dtype=np.uint64)
    assert (duplicate_groups(same) == 0).all()


def test_a_chain_is_one_group() -> None:
    chain = np.array([(1 << length) - 1 for length in range(0, 60, 3)], dtype=np.uint64)
    assert (duplicate_groups(chain, 3) == 0).all()
    assert (duplicate_groups(chain, 2) == -1).all()


def test_planted_pairs_are_found_among_many() -> None:
    chance = np.random.default_rng(4)
    hashes = chance.integers(0, 2**63, 60_000, dtype=np.uint64)
    hashes[30_000:30_500] = flipped(hashes[:500], 3, chance)
    found = duplicate_groups(hashes, 4)
    assert (found[30_000:30_500] == np.arange(500)).all()
    assert (found >= 0).sum() == 1_000


def test_nothing_and_wrong_distances() -> None:
    assert duplicate_groups(np.zeros(0, dtype=np.uint64)).size == 0
    assert duplicate_groups(np.zeros(1, dtype=np.uint64)).tolist() == [-1]
    with pytest.raises(ValueError, match="0 to 12"):
        duplicate_groups(np.zeros(2, dtype=np.uint64), 13)
