"""Questions and allowed answers as one tree behind an image.

Every image is the same number of positions and the questions are the same for every image, so all questions and all
their answers are laid out once: each question's tokens see the image and themselves, each answer's tokens see the image,
their question and the tokens before them, and position ids count along a branch. One pass over the tree then gives the
log-likelihood of every answer. Questions that begin alike share their first tokens, and so do answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PromptTree:
    """The tree for some questions.

    Attributes:
        token_ids: (t,) the tokens to run.
        depths: (t,) position of each token behind the image prefix.
        mask: (t, t) bool, true where row may see column.
        ends: per question, the index of its last token.
        steps: per question and answer, the (index whose logits predict, token predicted) pairs of its tokens.
    """

    token_ids: Tensor
    depths: Tensor
    mask: Tensor
    ends: tuple[int, ...]
    steps: tuple[tuple[tuple[tuple[int, int], ...], ...], ...]

    @classmethod
    def build(cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]) -> "PromptTree":
        """Lay out ``prompts`` (token ids per question) and ``answers`` (token ids per question and answer)."""
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        nodes: dict[tuple[int, int], int] = {}  # (parent, token) → index: whatever begins alike is run once

        def grow(parent: int, token: int) -> int:
            if (parent, token) not in nodes:
                nodes[parent, token] = len(tokens)
                tokens.append(token)
                parents.append(parent)
                depths.append(0 if parent < 0 else depths[parent] + 1)
            return nodes[parent, token]

        ends: list[int] = []
        steps: list[tuple[tuple[tuple[int, int], ...], ...]] = []
        for prompt, candidates in zip(prompts, answers, strict=True):
            node = -1
            for token in prompt:
                node = grow(node, token)
            ends.append(node)
            question_steps = []
            for candidate in candidates:
                if not candidate:
                    raise ValueError("An answer has no tokens.")
                at, path = node, []
                for place, token in enumerate(candidate):
                    path.append((at, token))
                    if place + 1 < len(candidate):  # an answer's last token is predicted, never read
                        at = grow(at, token)
                question_steps.append(tuple(path))
            steps.append(tuple(question_steps))

        mask = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
        for index, parent in enumerate(parents):
            if parent >= 0:
                mask[index] = mask[parent]
            mask[index, index] = True
        return cls(torch.tensor(tokens), torch.tensor(depths), mask, tuple(ends), tuple(steps))

    @property
    def readers(self) -> list[int]:
        """The indices whose logits are needed: question ends and the answers' inner tokens."""
        needed = {at for question in self.steps for answer in question for at, _ in answer}
        return sorted(needed | set(self.ends))
