"""Workers without a model, for measuring what is around one: one that sleeps, and one whose answers lie ready."""

import time
from collections.abc import Sequence

from vlm.samples import Answer, Pending, Result
from vlm.scoring.job import Asking
from vlm.scoring.worker import Answered, Loaded, Worker
from vlm.vocabulary import DEFAULT_VOCABULARY

BATCH = 8
IMAGE_SECONDS = 0.02  # that the sleeping engine takes for one: 50 a second, as a GPU is assumed to


class Ready(Worker):
    """Answers at once."""

    batch_size = BATCH

    def load(self) -> Loaded:
        return Loaded("none", "none", "none", self.batch_size)

    def answer(self, job: Asking, samples: Sequence[Pending]) -> Answered:
        return Answered([result(sample.id) for sample in samples], self.batch_size, 0.0)


class ReadyInLargeBatches(Ready):
    """Answers at once, 64 images together."""

    batch_size = 64


class Sleeper(Ready):
    """Answers as a GPU does that takes its time: one batch after another, and no core is busy meanwhile."""

    def answer(self, job: Asking, samples: Sequence[Pending]) -> Answered:
        with self._model:
            time.sleep(IMAGE_SECONDS * len(samples))
        return super().answer(job, samples)


def result(sample_id: int) -> Result:
    """Return answers to all questions as a model would give them; those of no two samples are alike."""
    answers = []
    for place, dimension in enumerate(DEFAULT_VOCABULARY):
        tags = tuple(map(dimension.tag_of, dimension.answers))
        best, least = (sample_id + place) % len(tags), 0.3 / len(tags)
        first = 0.7 + 0.29 * (sample_id * 2654435761 % 2**32) / 2**32
        rest = (1 - first) / max(1, len(tags) - 1)
        probabilities = tuple(first if number == best else rest for number in range(len(tags)))
        said = (tags, probabilities, 0.9, tags[best], first)
        answers.append(Answer(1, dimension.name, place, *said, first > least, ""))
    return Result(sample_id, tuple(answers))
