"""The engine's face: images and questions in; probabilities, log-likelihoods or text out."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from threading import Lock
from typing import TypeVar, get_args

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from vlm.vocabulary import Vocabulary

from . import devices
from .crops import Cropping, Detail, PreparedImage, prepare
from .errors import EngineError
from .linear import number_format, rounding_of
from .modeling import CropLayout, KeyValue, MoondreamForTagging
from .passes import CROPS, IMAGES, Passes
from .scores import DimensionScore, Spelling, dimension_score, longest_prefix, mean_score, spellings
from .tree import PromptTree

Images = Sequence["Image.Image | PreparedImage"]
T = TypeVar("T")

CROPS_OF_APPLE = 16  # of one pass: an Apple GPU writes the scores of attention to memory, 17 MB a crop and layer


@dataclass(frozen=True, slots=True)
class _VocabularyTree:
    """The questions of all dimensions, each with its wordings, one after another in ``tree``."""

    tree: PromptTree
    spellings: tuple[tuple[Spelling, ...], ...]  # per dimension, in the order of the tree's answers


@dataclass(frozen=True, slots=True)
class Submitted:
    """Images that were handed to the device, and may still be on their way through it."""

    vocabulary: Vocabulary
    layout: _VocabularyTree
    parts: list["_OnItsWay"]


class _OnItsWay:
    """A tensor that is copied to the host, without waiting until somebody asks for it."""

    def __init__(self, tensor: Tensor) -> None:
        self._done: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            # Who waits for it sleeps: the cores are wanted by the threads that decode what comes next.
            self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(tensor.device))
        else:
            self._host = tensor  # an Apple GPU waits where it is copied

    def get(self) -> Tensor:
        if self._done is not None:
            self._done.synchronize()
        return self._host.cpu()


class Tagger:
    """A loaded model with its tokenizer. Get one from :func:`~vlm.moondream.load_tagger`.

    Several threads may call it at once. ``batch_size`` is how many images go through the model together; running out of
    memory on an accelerator halves it for good and goes on.
    """

    def __init__(
        self,
        model: MoondreamForTagging,
        tokenizer: Tokenizer,
        *,
        model_id: str,
        revision: str,
        detail: Detail = "full",
        batch_size: int = 4,
    ) -> None:
        check_detail(detail)
        model.eval()  # type: ignore[no-untyped-call]
        self._model = model
        self._tokenizer = tokenizer
        self._trees: dict[str, _VocabularyTree] = {}
        self._lock = Lock()
        device = self._weight.device
        self._passes = Passes(capture=True) if device.type == "cuda" else None
        self.model_id, self.revision, self.detail, self.batch_size = model_id, revision, detail, batch_size
        self.config = model.config
        self.demonstration: bool = model.config.demonstration
        self._text, self._vision, self._tokens = model.config.text, model.config.vision, model.config.tokens
        self._prefix_length = self._vision.grid**2 + 1
        self._cropping = Cropping(
            self._vision.crop_size,
            self._vision.enc_patch_size,
            self._vision.overlap_margin,
            self._vision.max_crops,
        )

    @property
    def device(self) -> str:
        return str(self._weight.device)

    @property
    def dtype(self) -> str:
        """The number format that the model computes in, ``int8`` if it multiplies bytes."""
        return number_format(self._weight.dtype, rounding_of(self._model))

    @property
    def in_flight(self) -> int:
        """How many batches are best submitted before the first one's result is asked for: an accelerator works meanwhile."""
        return 1 if self._weight.device.type == "cpu" else 2

    @property
    def _weight(self) -> Tensor:
        """A parameter on the model's device, in the number format that it computes in."""
        weight: Tensor = self._model.model.text.post_ln.weight
        return weight

    # -- images --------------------------------------------------------------------------------------------------------
    def enough(self, size: tuple[int, int], detail: Detail | None = None) -> tuple[int, int]:
        """Return which width and height are enough of an image of ``size`` pixels; see :meth:`prepare`."""
        return self._cropping.enough(size, detail or self.detail)

    def prepare(
        self, image: Image.Image, detail: Detail | None = None, *, size: tuple[int, int] | None = None
    ) -> PreparedImage:
        """Cut ``image`` into crops on the CPU, so that a pool of threads can do it while the model works.

        Args:
            size: width and height of the file's own image, where ``image`` was decoded at a fraction of it.
        """
        return prepare(image, detail or self.detail, size=size, cropping=self._cropping)

    def image_embeddings(self, images: Images, detail: Detail | None = None) -> Tensor:
        """Return the image tokens, (n, grid², text width), on the model's device."""
        return torch.stack(self._batched(images, detail, lambda batch: list(self._image_tokens(batch))))

    # -- questions -----------------------------------------------------------------------------------------------------
    def first_token_logits(self, images: Images, question: str, detail: Detail | None = None) -> Tensor:
        """Return the scores of every token as the answer's first, (n, vocabulary size), float32."""
        tree = self._plant([question], [[]])
        rows = self._batched(
            images, detail, lambda batch: list(self._extend(tree, self._prefill(batch), tree.ends)[0][:, 0])
        )
        return torch.stack(rows)

    def log_likelihoods(
        self, images: Images, question: str, answers: Sequence[str], detail: Detail | None = None
    ) -> list[list[float]]:
        """Return log p(answer | image, question) per image and answer, spelled as given, without the end token.

        All tokens share the probability here, the answer token too, as in the reference implementation.

        Raises:
            ValueError: an answer is empty.
            EngineError: question and answer are longer than the model's context, or the model's scores are not finite.
        """
        if not answers:
            return [[] for _ in images]
        tree = self._plant([question], [[self._encode(answer) for answer in answers]])
        rows = self._batched(
            images, detail, lambda batch: self._summed(tree, self._log_likelihoods(tree, self._image_tokens(batch)))
        )
        return [row[0] for row in rows]

    def score(
        self, images: Images, vocabulary: Vocabulary, detail: Detail | None = None
    ) -> list[dict[str, DimensionScore]]:
        """Ask every question of ``vocabulary`` about every image, in one pass of the language model per batch.

        A word's probability is the sum over its spellings (its own and the dimension's further ones, each with and without
        a leading space, in lower case and capitalised), divided by the sum over all allowed words; that sum itself is the
        ``mass``. Where a question has other wordings, they are asked in the same pass, and :func:`mean_score` joins them.

        Returns:
            Per image: dimension name → score.

        Raises:
            EngineError: a question is longer than the model's context, or the model's scores are not finite.
        """
        return self.result(self.submit(images, vocabulary, detail))

    def submit(self, images: Images, vocabulary: Vocabulary, detail: Detail | None = None) -> Submitted:
        """Begin :meth:`score`: hand images to the device without waiting for it. A CPU has computed them when it returns.

        Raises:
            EngineError: as for :meth:`score`; what the device reports later is raised by :meth:`result`.
        """
        layout = self._vocabulary_tree(vocabulary)
        tree = layout.tree

        def run(batch: list[PreparedImage]) -> list[_OnItsWay]:
            tokens = self._image_tokens(batch)
            if self._passes is None:
                return [_OnItsWay(self._scores(tree, tokens))]
            name = vocabulary.hash
            return [_OnItsWay(self._passes.run(name, lambda rows: self._scores(tree, rows), tokens, IMAGES))]

        return Submitted(vocabulary, layout, self._batched(images, detail, run))

    def result(self, submitted: Submitted) -> list[dict[str, DimensionScore]]:
        """Return what :meth:`score` returns, for images that were submitted; waits for the device.

        Raises:
            EngineError: the model's scores are not finite, or the device stopped working.
        """
        layout, results = submitted.layout, []
        for part in submitted.parts:
            with _telling_what_is_lost():
                values = part.get()
            for image in self._summed(layout.tree, values):
                results.append(_scores_of(submitted.vocabulary, layout, iter(image)))
        return results

    def answer(self, images: Images, question: str, max_new_tokens: int = 8, detail: Detail | None = None) -> list[str]:
        """Return the greedy answer to ``question`` for each image."""
        return [texts[0] for texts in self.answers(images, [question], max_new_tokens, detail)]

    def answers(
        self, images: Images, questions: Sequence[str], max_new_tokens: int = 8, detail: Detail | None = None
    ) -> list[list[str]]:
        """Return the greedy answers per image and question; each image is encoded once for all of them.

        Raises:
            ValueError: ``max_new_tokens`` is not positive.
            EngineError: a question and its answer are longer than the model's context, or the model's scores are not
                finite.
        """
        if max_new_tokens < 1:
            raise ValueError("max_new_tokens must be at least 1.")
        if not questions:
            return [[] for _ in images]
        tree = self._plant(questions, [[]] * len(questions), max_new_tokens)
        return self._batched(images, detail, lambda batch: self._generate(tree, batch, max_new_tokens))

    def prompt_ids(self, question: str) -> list[int]:
        """Return the token ids of a question; the suffix stands twice, as in upstream's code and training.

        Blanks around a question do not count, as they do not in its key, nor in upstream's serving code.
        """
        return [*self._tokens.query_prefix, *self._encode(question.strip()), *self._tokens.query_suffix * 2]

    def close(self) -> None:
        """Give the weights' memory back. The tagger cannot be used afterwards."""
        device = self._weight.device
        if self._passes is not None:
            self._passes.clear()
        del self._model
        with suppress(RuntimeError):  # of a device that stopped working
            devices.release_memory(device)

    # -- inside --------------------------------------------------------------------------------------------------------
    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _batched(self, images: Images, detail: Detail | None, run: Callable[[list[PreparedImage]], list[T]]) -> list[T]:
        """Run as many images at once as go through the model together; on full memory half as many, for good."""
        results: list[T] = []
        done = 0
        while done < len(images):
            chunk = images[done : done + max(1, self.batch_size)]
            prepared = [image if isinstance(image, PreparedImage) else self.prepare(image, detail) for image in chunk]
            try:
                with torch.inference_mode(), _telling_what_is_lost():
                    part = run(prepared)
            except RuntimeError as error:
                if not devices.is_out_of_memory(error):
                    raise
                if len(chunk) == 1:
                    raise EngineError(
                        f"{self.device} ran out of memory on a single image. Close other programs, choose another device "
                        "with DATAVISOR_VLM_DEVICE, or encode images with low detail."
                    ) from error
                self.batch_size = len(chunk) // 2
            else:
                results += part
                done += len(chunk)
                continue
            # Outside the handler: the exception's frames hold the very tensors that must go.
            if self._passes is not None:
                self._passes.clear()
            devices.release_memory(self._weight.device)
        return results

    def _image_tokens(self, batch: list[PreparedImage]) -> Tensor:
        """Encode the crops of a batch: (b, grid², text width)."""
        layouts, first = [], 0
        for image in batch:
            # Where the tiling is (1, 1) the one window is the whole image.
            windows = tuple(range(first + 1, first + len(image.crops))) or (first,)
            layouts.append(CropLayout(first, windows, image.tiling))
            first += len(image.crops)
        device, on_gpu = self._weight.device, self._weight.device.type == "cuda"
        # From pinned memory the copy does not wait for what a GPU still has to do.
        side = self._vision.crop_size
        crops = torch.empty(first, side, side, self._vision.in_channels, dtype=torch.uint8, pin_memory=on_gpu)
        for image, layout in zip(batch, layouts, strict=True):
            crops[layout.whole : layout.whole + len(image.crops)] = torch.from_numpy(image.crops)
        if self._passes is not None:
            uploaded = crops.to(device, non_blocking=on_gpu)
            features = self._passes.run("crops", self._model.encode_crops, uploaded, CROPS)
        else:
            step = self._crops_per_pass(first)
            features = torch.cat(
                [self._model.encode_crops(crops[at : at + step].to(device)) for at in range(0, first, step)]
            )
        return self._model.image_embeddings(features, layouts)

    def _crops_per_pass(self, crops: int) -> int:
        """On a CPU, as many as leave the widest activations in its cache."""
        if self._weight.device.type != "cpu":
            return min(crops, CROPS_OF_APPLE)
        widest: int = self._vision.grid**2 * self._vision.enc_ff_dim * self._weight.itemsize
        return max(1, devices.CPU_CACHE // widest)

    def _prefill(self, batch: list[PreparedImage]) -> list[KeyValue]:
        return self._model.prefill(self._image_tokens(batch))

    def _extend(self, tree: PromptTree, prefix: list[KeyValue], indices: Tensor) -> tuple[Tensor, list[KeyValue]]:
        """Run a tree behind the prefixes: logits (b, len(indices), vocabulary size) behind the given tokens."""
        text, positions = self._model.model.text, tree.depths + self._prefix_length
        hidden, branch = text.extend(prefix, tree.token_ids, positions, tree.mask, indices)
        return text.logits(hidden), branch

    def _log_likelihoods(self, tree: PromptTree, tokens: Tensor, *, banned: int | None = None) -> Tensor:
        """Return the log-likelihoods of all tokens of the tree's answers, (b, p), behind image tokens (b, grid², width).

        Args:
            banned: the id of a token that no answer may have anywhere; the others share its probability.
        """
        logits, _ = self._extend(tree, self._model.prefill(tokens), tree.readers)
        if banned is not None:
            logits[..., banned] = -math.inf
        rows, ids = tree.predictions
        return logits[:, rows, ids] - logits.logsumexp(-1)[:, rows]

    def _scores(self, tree: PromptTree, tokens: Tensor) -> Tensor:
        # No answer holds the token that announces one. Upstream's serving code bans it from the first token on, and in
        # the normaliser it would take from the mass what the model has not given to any word.
        return self._log_likelihoods(tree, tokens, banned=self._tokens.answer_id)

    def _summed(self, tree: PromptTree, values: Tensor) -> list[list[list[float]]]:
        """Sum what :meth:`_log_likelihoods` returns, per image, question and answer."""
        values = values.cpu()
        _check_finite(values)
        results = []
        for image in values.tolist():  # Python's numbers are doubles, which Apple's GPUs have not
            value = iter(image)
            results.append([[sum(islice(value, length)) for length in question] for question in tree.lengths])
        return results

    def _vocabulary_tree(self, vocabulary: Vocabulary) -> _VocabularyTree:
        with self._lock:
            if vocabulary.hash not in self._trees:
                self._trees[vocabulary.hash] = self._lay_out(vocabulary)
            return self._trees[vocabulary.hash]

    def _lay_out(self, vocabulary: Vocabulary) -> _VocabularyTree:
        answers, spelled = [], []
        for dimension in vocabulary:
            words: dict[tuple[int, ...], int] = {}
            for index, word in enumerate(dimension.answers):
                for spelling in chain.from_iterable(map(spellings, dimension.spelled(word))):
                    words.setdefault(tuple(self._encode(spelling)), index)
            places = {ids: place for place, ids in enumerate(words)}
            answers.append(list(words))
            spelled.append(tuple(Spelling(word, longest_prefix(ids, places)) for ids, word in words.items()))
        questions = [question for dimension in vocabulary for question in dimension.questions]
        repeated = [
            own for dimension, own in zip(vocabulary, answers, strict=True) for _ in dimension.questions
        ]  # each wording has the same answers
        return _VocabularyTree(self._plant(questions, repeated), tuple(spelled))

    def _plant(
        self, questions: Sequence[str], answers: Sequence[Sequence[Sequence[int]]], new_tokens: int = 0
    ) -> PromptTree:
        """Build the tree of some questions and answers, with room for tokens that are still to come."""
        prompts = [self.prompt_ids(question) for question in questions]
        tree = PromptTree.build(prompts, answers, self._weight.device)
        room = self._text.max_context - self._prefix_length
        if (length := tree.positions + new_tokens) > room:
            raise EngineError(
                f"A question and its answer take {length} tokens, and the model has room for {room} behind an image. "
                "Shorten the question."
            )
        return tree

    def _generate(self, tree: PromptTree, batch: list[PreparedImage], max_new_tokens: int) -> list[list[str]]:
        """Answer all questions of all images greedily, one token of each per pass."""
        text, device = self._model.model.text, self._weight.device
        questions = len(tree.ends)
        prefix = self._prefill(batch)
        logits, past = self._extend(tree, prefix, tree.ends)
        mask, own = tree.mask[tree.ends], torch.eye(questions, dtype=torch.bool, device=device)
        positions = tree.depths[tree.ends] + self._prefix_length
        everything = torch.arange(questions, device=device)
        generated: list[list[list[int]]] = [[[] for _ in range(questions)] for _ in batch]
        unfinished = torch.ones(len(batch), questions, dtype=torch.bool)
        for step in range(max_new_tokens):
            logits[..., self._tokens.answer_id] = -math.inf  # it announces an answer and is none
            best, chosen = logits.max(-1)
            _check_finite(best)
            ids = chosen.cpu()
            unfinished &= ids != self._tokens.eos_id
            for image, question in unfinished.nonzero().tolist():
                generated[image][question].append(int(ids[image, question]))
            if step + 1 == max_new_tokens or not unfinished.any():
                break
            mask, positions = torch.cat([mask, own], dim=1), positions + 1
            hidden, past = text.extend(prefix, chosen, positions, mask, everything, past)
            logits = text.logits(hidden)
        return [[self._tokenizer.decode(ids) for ids in row] for row in generated]


def check_detail(detail: str) -> None:
    """Raise ``ValueError`` if there is no such detail."""
    if detail not in get_args(Detail):
        raise ValueError(f"detail is “{detail}”; it must be “full” or “low”.")


@contextmanager
def _telling_what_is_lost() -> Iterator[None]:
    """Say in a sentence that the device stopped working, or has no kernel for what was asked of it."""
    try:
        yield
    except RuntimeError as error:
        if (told := devices.not_supported(error) or devices.lost(error)) is not None:
            raise told from error
        raise


def _check_finite(scores: Tensor) -> None:
    if not scores.isfinite().all():
        raise EngineError(
            "The model's scores are not finite: the weights are damaged, or the dtype is too narrow for them. Fetch the "
            "weights again, or choose another dtype."
        )


def _scores_of(
    vocabulary: Vocabulary, layout: _VocabularyTree, values: Iterator[Sequence[float]]
) -> dict[str, DimensionScore]:
    """Return the scores of one image from the log-likelihoods ``values``, one list per wording of each dimension."""
    return {
        dimension.name: mean_score(
            [dimension_score(dimension.answers, next(values), spelled) for _ in dimension.questions]
        )
        for dimension, spelled in zip(vocabulary, layout.spellings, strict=True)
    }
