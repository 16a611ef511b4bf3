"""Images per second of the engine against answering question by question, at full size with random weights.

    python -m benchmarks.engine --json

It needs PyTorch, transformers, tokenizers, safetensors and Pillow, and no Django. First comes parity: the engine on this
device against recorded outputs of the reference implementation, without which no speed means anything. Then the batch
sizes one after another (1, 8, 32 and 64 on a GPU), how many launches some batches take and how long the GPU idles between
them, and, where a GPU multiplies float8, the same in that format with how far its logits are from the plain ones. Each part
is a line of JSON as soon as it is known, so that a limit on time loses nothing.

On a CPU this takes the memory of two models, 8 to 12 GB, of which the report counts the engine's alone. Images are cut into
crops beforehand on both sides; ``benchmarks.prepare`` measures that, and ``benchmarks.pipeline`` a run with all there is to it.

Both sides use the same weights, device and number format in the same run. The engine holds them as it does those of the
published file: in bfloat16 where it computes in float32, in the order that suits the CPU, or rounded to bytes (int8,
against a baseline in the format of the rest). The baseline is how the model is commonly run: one image at a time, every
crop encoded, the image and then each question prefilled and two tokens decoded against a cache of 2,048 slots. On a CPU
engine and baseline take turns for some rounds, and figures are medians over the rounds, as machines are busy by moods. On an
accelerator the baseline is measured once per size of picture, and the engine has two batches in flight, as a run does. Speed
does not depend on the weights' values, and nothing here says anything about accuracy.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device import forget, machine, matmul_rate, peak_memory, score_in_flight, seconds, watched
from benchmarks.parity import TOLERANCES, parity
from benchmarks.sequential import Sequential
from vlm.moondream import PreparedImage, Tagger
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.crops import Detail, overlap_crops
from vlm.moondream.devices import computes_fused, gpu_multiplies_float8, resolve_device, resolve_dtype
from vlm.moondream.linear import Form, Linear, Rounding, layer_form
from vlm.moondream.loading import PATCH_MULTIPLE, ROUNDINGS, held_in
from vlm.moondream.modeling import CropLayout, MoondreamForTagging
from vlm.moondream.scores import spellings
from vlm.vocabulary import DEFAULT_VOCABULARY, Vocabulary

BATCH_SIZES = (1, 8, 32, 64)  # on a GPU
BATCHES = 4  # at least, of a case and round on an accelerator, which has two of them at once
DIFFERENT = 16  # pictures, which come again where more are wanted; the baseline has no more
REPEATS = 3  # of the questions on their own, which take a second


@dataclass(frozen=True)
class Case:
    """What is measured: a picture's size in pixels and how finely it is cropped."""

    name: str
    width: int
    height: int
    detail: Detail


CASES = (  # those of one size are neighbours, with the baseline that they share between them
    Case("640x480 full", 640, 480, "full"),
    Case("640x480 low", 640, 480, "low"),
    Case("378x378 full", 378, 378, "full"),
)


@dataclass(frozen=True)
class Round:
    """What a case took once, in seconds per image, and the rate of a square product around it, in FLOP/s."""

    engine: float
    engine_questions: float
    baseline: float
    baseline_questions: float
    matmul_rate: float


@dataclass(frozen=True)
class Measurement:
    """Medians over the rounds. Seconds are per image; ratios are the baseline's time over the engine's in one round."""

    case: str
    crops: int
    engine_seconds: float
    baseline_seconds: float
    engine_images_per_second: float
    baseline_images_per_second: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float
    engine_question_seconds: float
    baseline_question_seconds: float
    question_ratio: float
    engine_tflop: float
    matmul_gflops: float
    matmul_share: float


# -- the model and its stand-in tokenizer ------------------------------------------------------------------------------
def stand_in_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Return a tokenizer of about the real one's grain: pieces of up to five letters, with the space in front."""
    pieces = Split(Regex(r" ?\w{1,5}|[^\w\s]"), "isolated")
    texts = [text for d in vocabulary for text in (d.question, *(s for word in d.words for s in spellings(word)))]
    known = dict.fromkeys(piece for text in texts for piece, _ in pieces.pre_tokenize_str(text))
    tokenizer = Tokenizer(WordLevel({"?": 5} | {piece: 100 + i for i, piece in enumerate(known)}, unk_token="?"))
    tokenizer.pre_tokenizer = pieces
    return tokenizer


def random_model(device: torch.device, dtype: torch.dtype, form: Form | None = None) -> MoondreamForTagging:
    """Return the full-size model with random weights, the same at every call, as the published file would be loaded.

    Layers take their form one by one, so that no second copy ever exists.
    """
    torch.manual_seed(0)
    with torch.device("meta"):
        model = MoondreamForTagging(MoondreamConfig())
    for name in [name for name, _ in model.named_modules()]:  # a list of the modules would keep those replaced
        module = model.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(held_in(parameter, device, dtype, torch.bfloat16))
            parameter.requires_grad_(False)
        module.to_empty(device=device, recurse=False)
        model._init_weights(module)
        if form and isinstance(module, Linear):
            model.set_submodule(name, form(name, module))
    return model


def random_image(case: Case, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (case.height, case.width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# -- measuring ---------------------------------------------------------------------------------------------------------
def engine_flop(crops: int, tagger: Tagger, vocabulary: Vocabulary) -> int:
    """Count the matrix products of the engine's pass over one image, on a model without memory."""
    tree = tagger._vocabulary_tree(vocabulary).tree
    with torch.device("meta"):
        model = MoondreamForTagging(MoondreamConfig()).requires_grad_(False)
    side = model.config.vision.crop_size
    tiling = {1: (1, 1), 9: (2, 4)}[crops]
    layout = CropLayout(0, tuple(range(1, crops)) or (0,), tiling)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(
            torch.empty(crops, side, side, 3, dtype=torch.uint8, device="meta"),
            [layout],
            tree.token_ids.to("meta"),
            tree.depths.to("meta"),
            tree.mask.to("meta"),
            tree.readers.to("meta"),
        )
    return int(counter.get_total_flops())


class Baseline:
    """The baseline's seconds and the logits of plain layers, in the same number format.

    A CPU is busy by moods: there they are measured when they are asked for, in each round, right behind the engine, by a
    model that stays. On an accelerator :meth:`measure_once` does so before the engine comes, so that the memory is all
    the engine's, and minutes on it are not spent on the baseline again and again.

    Attributes:
        in_memory: whether a model of it is there.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, vocabulary: Vocabulary) -> None:
        self._device, self._dtype, self._vocabulary = device, dtype, vocabulary
        self._model: tuple[Sequential, Tagger] | None = None
        self._seconds: dict[tuple[int, int, int], tuple[float, float]] = {}
        self._logits: dict[Case, Tensor] = {}

    @property
    def in_memory(self) -> bool:
        return self._model is not None

    def measure_once(self, cases: Sequence[Case], images: int) -> None:
        """Measure what will be asked for, each size twice, of which the first time chooses kernels and finds memory."""
        for case in cases:
            self.seconds(case, 1, turn=-1)
            self.seconds(case, images, turn=0)
            self.logits(case)
        _, tagger = self._loaded()
        self._model = None
        tagger.close()

    def seconds(self, case: Case, images: int, turn: int) -> tuple[float, float]:
        """Return seconds per image, and how many of them go to the questions; once per size and turn."""
        key = (case.width, case.height, turn)
        if key not in self._seconds:
            sequential, _ = self._loaded()
            cut = [overlap_crops(random_image(case, seed)) for seed in range(min(images, DIFFERENT))]
            with torch.inference_mode():
                self._seconds[key] = sequential.measure(cut, self._vocabulary)
        return self._seconds[key]

    def logits(self, case: Case) -> Tensor:
        """Return the first-token logits of a case's first picture, on the host."""
        if case not in self._logits:
            self._logits[case] = first_logits(self._loaded()[1], case, self._vocabulary)
        return self._logits[case]

    def _loaded(self) -> tuple[Sequential, Tagger]:
        if self._model is None:
            plain = random_model(self._device, self._dtype).to(self._dtype)  # type: ignore[call-arg]
            tagger = new_tagger(plain, self._vocabulary, batch_size=1)
            self._model = Sequential(plain, tagger.prompt_ids), tagger
        return self._model


def new_tagger(model: MoondreamForTagging, vocabulary: Vocabulary, batch_size: int) -> Tagger:
    names = stand_in_tokenizer(vocabulary)
    return Tagger(model, names, model_id="random", revision="random", batch_size=batch_size)


def first_logits(tagger: Tagger, case: Case, vocabulary: Vocabulary) -> Tensor:
    return tagger.first_token_logits([random_image(case, 0)], vocabulary.dimensions[0].question, case.detail).cpu()


def prepared(tagger: Tagger, case: Case, images: int) -> list[PreparedImage]:
    """Return so many images, cut into crops: that is a matter of the CPU's cores, and measured elsewhere."""
    different = [tagger.prepare(random_image(case, seed), case.detail) for seed in range(min(images, DIFFERENT))]
    return [different[index % DIFFERENT] for index in range(images)]


def measure_engine(
    tagger: Tagger, images: Sequence[PreparedImage], vocabulary: Vocabulary, detail: Detail
) -> tuple[float, float]:
    """Return seconds per image, and how many of them go to the questions, which are not captured when they are alone."""
    device, weight = tagger._weight.device, tagger._weight
    whole = seconds(device, lambda: score_in_flight(tagger, images, vocabulary, detail))
    together = min(len(images), tagger.batch_size)
    # What an image's keys and values hold makes no difference to the time.
    prefix = tagger._model.prefill(weight.new_zeros(together, tagger._prefix_length - 1, weight.shape[0]))
    tree = tagger._vocabulary_tree(vocabulary).tree
    ask = lambda: tagger._extend(tree, prefix, tree.readers)  # noqa: E731
    ask()
    return whole / len(images), median(seconds(device, ask) for _ in range(REPEATS)) / together


def summarised(case: str, crops: int, flop: int, rounds: Sequence[Round]) -> Measurement:
    """Return the medians of a case's rounds; ``flop`` are the operations that an image takes."""
    engine, baseline = median(each.engine for each in rounds), median(each.baseline for each in rounds)
    ratios = [each.baseline / each.engine for each in rounds]
    return Measurement(
        case=case,
        crops=crops,
        engine_seconds=engine,
        baseline_seconds=baseline,
        engine_images_per_second=1 / engine,
        baseline_images_per_second=1 / baseline,
        ratio=median(ratios),
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
        engine_question_seconds=median(each.engine_questions for each in rounds),
        baseline_question_seconds=median(each.baseline_questions for each in rounds),
        question_ratio=median(each.baseline_questions / each.engine_questions for each in rounds),
        engine_tflop=flop / 1e12,
        matmul_gflops=median(each.matmul_rate for each in rounds) / 1e9,
        matmul_share=median(flop / each.engine / each.matmul_rate for each in rounds),
    )


def describe(row: Measurement) -> str:
    return (
        f"{row.case}: {row.engine_seconds:.2f} s an image, {row.ratio:.2f} ({row.lowest_ratio:.2f} to "
        f"{row.highest_ratio:.2f}) times as fast as the baseline; the questions alone {row.question_ratio:.1f} times; "
        f"{row.matmul_share:.0%} of a square product's rate"
    )


def measure(
    device: torch.device,
    dtype: torch.dtype,
    cases: Sequence[Case],
    images: int,
    batch_size: int,
    rounds: int,
    rounding: Rounding = "",
    baseline: Baseline | None = None,
) -> dict[str, Any]:
    """Measure the cases one after another, round after round.

    Args:
        images: per case and round, at least; full batches are made of them.
        baseline: what was measured before; ``None`` to have it take turns with the engine.
    """
    vocabulary, in_turns = DEFAULT_VOCABULARY, baseline is None
    baseline = baseline or Baseline(device, dtype, vocabulary)
    forget(device)
    model = random_model(device, dtype, layer_form(device, dtype, rounding))
    if computes_fused(device):
        model.model.vision.align_patches(PATCH_MULTIPLE)
    tagger = new_tagger(model, vocabulary, batch_size)
    images = batch_size * max(1 if device.type == "cpu" else BATCHES, -(-images // batch_size))
    measured: dict[Case, list[Round]] = {case: [] for case in cases}
    crops: dict[Case, int] = {}
    peak, away = 0, 0.0
    with torch.inference_mode():
        for number in range(rounds):
            for case in cases:
                ready = prepared(tagger, case, images)
                crops[case] = len(ready[0].crops)
                if device.type != "cpu" and not number:
                    # The first pass of a shape takes longer there, as kernels are chosen, and the second, which is captured.
                    score_in_flight(tagger, ready[: 2 * batch_size], vocabulary, case.detail)
                before = matmul_rate(device, dtype, rounding)
                engine, engine_questions = measure_engine(tagger, ready, vocabulary, case.detail)
                rate = (before + matmul_rate(device, dtype, rounding)) / 2
                if not baseline.in_memory:  # neither its weights nor its caches are the engine's memory
                    peak = peak_memory(device)
                if not number and case is cases[0]:
                    expected = baseline.logits(case)
                    away = float((first_logits(tagger, case, vocabulary) - expected).norm() / expected.norm())
                beside = baseline.seconds(case, images, turn=number if in_turns else 0)
                measured[case].append(Round(engine, engine_questions, *beside, rate))
                print(
                    f"round {number + 1} of {rounds}: {case.name}, {engine:.3f} s an image", file=sys.stderr, flush=True
                )
        ready = prepared(tagger, cases[0], BATCHES * batch_size)
        _, gaps = watched(device, lambda: score_in_flight(tagger, ready, vocabulary, cases[0].detail))
    results = []
    for case, each in measured.items():
        results.append(summarised(case.name, crops[case], engine_flop(crops[case], tagger, vocabulary), each))
        print(describe(results[-1]), file=sys.stderr, flush=True)
    figures = {
        "machine": machine(device),
        "torch": torch.__version__,
        "device": str(device),
        "dtype": tagger.dtype,
        "images": images,
        "batch_size": batch_size,
        "rounds": rounds,
        "questions": len(vocabulary.dimensions),
        "question_and_answer_tokens": len(tagger._vocabulary_tree(vocabulary).tree.token_ids),
        "peak_memory_gb": peak / 1e9,
        "logits_rms_difference": away,
        "launches_and_gaps": gaps,
        "measurements": [asdict(result) for result in results],
    }
    tagger.close()
    return figures


def report(
    device: torch.device,
    dtype: torch.dtype,
    rounding: Rounding,
    cases: Sequence[Case],
    images: int,
    rounds: int,
    batch_sizes: Sequence[int],
    tell: Callable[[str, dict[str, Any]], None],
) -> None:
    """Measure one thing after another, and tell each as soon as it is known.

    Raises:
        SystemExit: the engine does not compute what the reference does.
    """
    for name in dict.fromkeys(("float32", str(dtype).removeprefix("torch."))):
        distance = parity(device, name)
        tell("parity", {"dtype": name, **asdict(distance)})
        if not distance.within(TOLERANCES[name]):
            sys.exit(
                f"The engine does not compute what the reference does on this device in {name}: it is {distance} away, and "
                f"{TOLERANCES[name]} is the most. Its speed means nothing."
            )
    baseline = None
    if device.type != "cpu":
        baseline = Baseline(device, dtype, DEFAULT_VOCABULARY)
        baseline.measure_once(cases, images)
    formats: list[Rounding] = [rounding]
    if not rounding and device.type == "cuda" and gpu_multiplies_float8(device):
        formats.append("fp8")
    for kind in formats:
        for size in batch_sizes:
            tell("batch", measure(device, dtype, cases, images, size, rounds, kind, baseline))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:1")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16, int8 or fp8")
    parser.add_argument("--images", type=int, help="images per size and round; one on a CPU, else 16, unless told")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often all is measured; more take longer and scatter less"
    )
    parser.add_argument(
        "--batch-sizes", nargs="+", type=int, help="images per pass; 1 on a CPU, else 1, 8, 32 and 64, unless told"
    )
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES], help="which sizes to measure")
    parser.add_argument(
        "--json",
        action="store_true",
        help="write each part of the report to stdout as a line of JSON, when it is known",
    )
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.name in arguments.cases]
    device = resolve_device(arguments.device)
    on_cpu = device.type == "cpu"
    images = (1 if on_cpu else 16) if arguments.images is None else arguments.images
    batch_sizes = arguments.batch_sizes or ([1] if on_cpu else list(BATCH_SIZES))
    if not cases or min(images, arguments.rounds, *batch_sizes) < 1:
        parser.error(f"Nothing to measure. There are the cases {', '.join(case.name for case in CASES)}.")

    def tell(part: str, figures: dict[str, Any]) -> None:
        if arguments.json:
            print(json.dumps({"part": part, **figures}), flush=True)
        elif part == "batch":
            print(
                f"{figures['machine']}; {figures['dtype']}; random weights; peak {figures['peak_memory_gb']:.1f} GB",
                flush=True,
            )
        else:
            print(f"away from the reference: {figures}", flush=True)

    dtype, rounding = resolve_dtype(arguments.dtype, device), ROUNDINGS.get(arguments.dtype, "")
    report(device, dtype, rounding, cases, images, arguments.rounds, batch_sizes, tell)


if __name__ == "__main__":
    main()
