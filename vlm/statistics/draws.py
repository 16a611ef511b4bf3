"""Which samples to show for review: at random and by doubt, each with its chance of having been drawn.

Labels of the least certain answers say nothing about accuracy unless their chance of being shown is known; with it they do,
by inverse weights. So every draw here is a probability sample: its first-order inclusion probabilities are exact, and none is zero.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from vlm.statistics.distributions import BoolArray, FloatArray, IntArray

UNIFORM_SHARE = 0.4
RARE_POWER = 0.6  # with less, rare words gain little and the overall interval is wider than ± 6.5 % at 200 labels


class Design(StrEnum):
    UNIFORM = "uniform"  # everybody with the same chance
    STRATIFIED = "stratified"  # within a word with the same chance; rare words more often
    MIXED = "mixed"  # a share uniform, the rest by doubt within words, rare words more often


@dataclass(frozen=True)
class Drawn:
    """A batch to be shown in this order.

    The order is random, so that the labelled beginning of a batch is itself a sample of it: with m of n labelled, each
    has the probability times m/n. Sorting a batch by doubt would spoil that until its last picture is labelled.
    """

    place: IntArray  # rows of the population
    probability: FloatArray  # of having been drawn, aligned with place
    design: Design
    seed: int

    def __len__(self) -> int:
        return len(self.place)


def doubt(
    top_probability: FloatArray, disagreement: FloatArray | None = None, contradiction: FloatArray | None = None
) -> FloatArray:
    """Return how doubtful each answer is, from 0 to 1: the chance that one of three independent alarms is right.

    1 - p(best word) · (1 - share of other runs or wordings that disagree) · (1 - strength of the contradiction with the
    pixels): a noisy or (Pearl, *Probabilistic Reasoning*, 1988, 4.3.2).
    """
    trusted = np.clip(np.asarray(top_probability, dtype=np.float64), 0.0, 1.0)
    for alarm in (disagreement, contradiction):
        if alarm is not None:
            trusted = trusted * (1.0 - np.clip(np.asarray(alarm, dtype=np.float64), 0.0, 1.0))
    return 1.0 - trusted


def inclusion(
    size: int,
    *,
    words: IntArray,
    doubts: FloatArray | None = None,
    design: Design = Design.MIXED,
    uniform_share: float = UNIFORM_SHARE,
    rare_power: float = RARE_POWER,
) -> FloatArray:
    """Return each sample's probability of being among ``size`` drawn ones; they add up to ``size``.

    ``words`` is the place of the model's word, any whole numbers >= 0. The share beside the uniform one is given to
    words in proportion to (their number of samples) ** rare_power, the power allocation of Bankier (1988): with 0.6 a word a hundred
    times as rare is seen a sixteenth as often. Within a word it goes by √(doubt · (1 - doubt)), the standard deviation of a
    right-or-wrong answer, since chances proportional to it give the narrowest interval (Neyman 1934; for labels Zrnic &
    Candès 2024, "Active statistical inference"); from one half on all doubts are alike. The uniform share bounds every
    weight: no label counts for more than 1/uniform_share uniform ones.
    """
    words = np.asarray(words, dtype=np.int64)
    total = len(words)
    size = min(size, total)
    if not size:
        return np.zeros(total)
    flat = np.full(total, 1.0 / total)
    if design is Design.UNIFORM:
        return flat * size
    counts = np.bincount(words).astype(np.float64)
    allotted = np.where(counts > 0, counts**rare_power, 0.0)
    allotted /= allotted.sum()
    if design is Design.STRATIFIED or doubts is None:
        pull = (allotted / np.maximum(counts, 1.0))[words]
        share = 0.0 if design is Design.STRATIFIED else uniform_share
    else:
        chance = np.clip(np.asarray(doubts, dtype=np.float64), 0.0, 0.5)
        spread = np.sqrt(chance * (1.0 - chance)) + 1e-9  # a word of certain answers only is drawn evenly
        pull = spread * (allotted / np.maximum(np.bincount(words, weights=spread), 1e-300))[words]
        share = uniform_share
    return _capped(share * flat + (1.0 - share) * pull, size)


def _capped(pull: FloatArray, size: int) -> FloatArray:
    """Scale to probabilities that add up to ``size``, none above one; what a certain one leaves goes to the others."""
    certain = np.zeros(len(pull), dtype=bool)
    while True:
        scaled = pull * ((size - np.count_nonzero(certain)) / pull[~certain].sum()) if not certain.all() else pull
        over = ~certain & (scaled >= 1.0)
        if not over.any():
            return np.where(certain, 1.0, scaled)
        certain |= over


def draw(
    size: int,
    *,
    words: IntArray,
    doubts: FloatArray | None = None,
    design: Design = Design.MIXED,
    eligible: BoolArray | None = None,
    uniform_share: float = UNIFORM_SHARE,
    rare_power: float = RARE_POWER,
    seed: int,
) -> Drawn:
    """Draw ``size`` samples without replacement; the same seed gives the same draw.

    Systematic sampling with unequal probabilities (Madow 1949) in random order within words (Hartley & Rao 1962): the
    probabilities are laid end to end, and every place where the running sum passes u, u+1, u+2 … is drawn, with one random u. So the
    chances are exact, the number is fixed, and each word gets its expected number up to one. ``eligible`` leaves out
    what was labelled before; see ``accuracy.design_weights`` for how batches add up.
    """
    chance = np.random.default_rng(seed)
    words = np.asarray(words, dtype=np.int64)
    rows = np.arange(len(words)) if eligible is None else np.flatnonzero(eligible)
    probability = inclusion(
        size,
        words=words[rows],
        doubts=None if doubts is None else np.asarray(doubts)[rows],
        design=design,
        uniform_share=uniform_share,
        rare_power=rare_power,
    )
    order = chance.permutation(len(rows))
    if len(rows) and design is not Design.UNIFORM:
        # Sorted in as few bytes as hold the words, it is a radix sort, which is linear.
        narrow = words[rows][order].astype(np.min_scalar_type(int(words.max())))
        order = order[np.argsort(narrow, kind="stable")]
    running = np.cumsum(probability[order])
    if len(running):
        running[-1] = round(running[-1])  # the sum of a million floats is not quite whole
    start = 1.0 - chance.random()  # in (0, 1], so that exactly ``size`` places are passed
    steps = np.floor(running - start).astype(np.int64) + 1
    taken = order[np.diff(steps, prepend=0) > 0]
    taken = chance.permutation(taken)
    return Drawn(rows[taken], probability[taken], design, seed)
