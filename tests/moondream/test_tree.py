"""Questions and answers as a tree of tokens."""

import pytest

from vlm.moondream.tree import PromptTree


def test_layout() -> None:
    tree = PromptTree.build([[1, 2, 3], [1, 2, 4]], [[[5, 6], [5, 7], [8]], [[5, 6, 7]]])
    #  0: 1 ─ 1: 2 ─ 2: 3 ─ 3: 5
    #            └── 4: 4 ─ 5: 5 ─ 6: 6
    assert tree.token_ids.tolist() == [1, 2, 3, 5, 4, 5, 6]
    assert tree.depths.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert tree.ends.tolist() == [2, 4]
    assert tree.readers.tolist() == [2, 3, 4, 5, 6]
    rows, tokens = tree.predictions
    assert tree.readers[rows].tolist() == [2, 3, 2, 3, 2, 4, 5, 6]
    assert tokens.tolist() == [5, 6, 5, 7, 8, 5, 6, 7]
    assert tree.lengths == ((2, 2, 1), (3,))
    assert tree.positions == 5
    sees = [[column for column, seen in enumerate(row) if seen] for row in tree.mask.tolist()]
    assert sees == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 4, 5], [0, 1, 4, 5, 6]]


def test_the_same_question_twice_is_run_once() -> None:
    tree = PromptTree.build([[1, 2], [1, 2]], [[[3, 4]], [[3, 4]]])
    assert tree.token_ids.tolist() == [1, 2, 3]
    assert tree.ends.tolist() == [1, 1]
    assert tree.predictions[:, :2].tolist() == tree.predictions[:, 2:].tolist()


def test_an_answer_without_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        PromptTree.build([[1]], [[[]]])
