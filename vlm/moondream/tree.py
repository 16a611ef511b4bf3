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
        ends: (questions,) the index of each question's last token.
        readers: (r,) the indices whose logits are needed: question ends and the answers' inner tokens.
        predictions: (2, p) the tokens of all answers, one after another: which of the ``readers`` predicts it, its id.
        lengths: per question and answer, how many tokens it has.
        positions: how many a branch takes at most.
    """

    token_ids: Tensor
    depths: Tensor
    mask: Tensor
    ends: Tensor
    readers: Tensor
    predictions: Tensor
    lengths: tuple[tuple[int, ...], ...]
    positions: int

    @classmethod
    def build(
        cls,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[Sequence[int]]],
        device: torch.device | None = None,
    ) -> "PromptTree":
        """Lay out ``prompts`` (token ids per question) and ``answers`` (token ids per question and answer).

        Raises:
            ValueError: an answer has no tokens.
        """
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
        predicted: list[tuple[int, int]] = []  # (index whose logits predict, token)
        for prompt, candidates in zip(prompts, answers, strict=True):
            node = -1
            for token in prompt:
                node = grow(node, token)
            ends.append(node)
            for candidate in candidates:
                if not candidate:
                    raise ValueError("An answer has no tokens.")
                at = node
                for place, token in enumerate(candidate):
                    predicted.append((at, token))
                    if place + 1 < len(candidate):  # an answer's last token is predicted, never read
                        at = grow(at, token)

        mask = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
        for index, parent in enumerate(parents):
            if parent >= 0:
                mask[index] = mask[parent]
            mask[index, index] = True
        readers = sorted({*ends, *(at for at, _ in predicted)})
        rows = {index: row for row, index in enumerate(readers)}
        predictions = [[rows[at] for at, _ in predicted], [token for _, token in predicted]]

        def on_device(values: Sequence[object]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        return cls(
            token_ids=on_device(tokens),
            depths=on_device(depths),
            mask=mask.to(device),
            ends=on_device(ends),
            readers=on_device(readers),
            predictions=on_device(predictions),
            lengths=tuple(tuple(map(len, candidates)) for candidates in answers),
            positions=max(depths, default=-1) + 1,
        )
