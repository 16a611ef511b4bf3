"""Images per second of the engine against answering question by question, at full size with random weights.

    python -m benchmarks.engine --json

It needs PyTorch, transformers, tokenizers, safetensors and Pillow, and no Django. First comes parity: the engine on this
device against recorded outputs of the reference implementation, without which no speed means anything. Then the batch
sizes one after another (1, 8, 32 and 64 on a GPU), how many launches a pass takes and how long the GPU idles between them,
and, where a GPU multiplies float8, the same in that format with how far its logits are from the plain ones.

On a CPU this takes the memory of two models, 8 to 12 GB, of which the report counts the engine's alone.

Both sides use the same weights, device and number format in the same run. The engine holds them as it does those of the
published file: in bfloat16 where it computes in float32, in the order that suits the CPU, or rounded to bytes (int8,
against a baseline in the format of the rest). The baseline is how the model is commonly run: one image at a time, every
crop encoded, the image and then each question prefilled and two tokens decoded against a cache of 2,048 slots. Engine and
baseline take turns for some rounds, and figures are medians over the rounds, as machines are busy by moods. Speed does
not depend on the weights' values, and nothing here says anything about accuracy.
"""

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from vlm.moondream import Tagger, load_tagger
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.crops import Detail, overlap_crops
from vlm.moondream.devices import (
    computes_fused,
    cpu_computes_bfloat16,
    gpu_multiplies_float8,
    resolve_device,
    resolve_dtype,
)
from vlm.moondream.linear import Form, Linear, Rounding, layer_form, round_to_float8
from vlm.moondream.loading import PATCH_MULTIPLE, ROUNDINGS, held_in
from vlm.moondream.modeling import CropLayout, KeyValue, MoondreamForTagging, rotate
from vlm.moondream.scores import spellings
from vlm.vocabulary import DEFAULT_VOCABULARY, Vocabulary

CACHE_SLOTS = 2048
DECODED_TOKENS = 2
VECTORS = Path(__file__).parent.parent / "tests" / "data" / "moondream2-vectors"
TOLERANCE = 1e-4  # of float32 against the reference; exact kernels are within 1e-5, a wrong position is 4e-3 away
BATCH_SIZES = (1, 8, 32, 64)  # on a GPU
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


# -- the baseline ------------------------------------------------------------------------------------------------------
class Sequential:
    """One image at a time, one question at a time."""

    def __init__(self, model: MoondreamForTagging, tagger: Tagger) -> None:
        self.vision, self.text, self.bos = model.model.vision, model.model.text, model.config.tokens.bos_id
        self.tagger = tagger
        weight, dims = self.text.post_ln.weight, self.text.dims
        shape = (1, dims.n_kv_heads, CACHE_SLOTS, dims.head_dim)
        self.caches: list[KeyValue] = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(dims.n_layers)]
        self.prefix = model.config.vision.tokens + 1
        mask = torch.ones(CACHE_SLOTS, CACHE_SLOTS, dtype=torch.bool, device=weight.device).tril()
        mask[: self.prefix, : self.prefix] = True
        self.mask = mask[None, None]

    def encode(self, image: Image.Image) -> None:
        """Encode every crop and put the image into the caches."""
        crops, tiling = overlap_crops(image)
        x = self.vision.patch_emb(self.vision.patches(torch.from_numpy(crops).to(self.text.wte.device)))
        x = x + self.vision.pos_emb
        for block in self.vision.blocks:
            x = x + block.attn.merge(F.scaled_dot_product_attention(*block.attn.split(block.ln1(x))))
            x = x + block.mlp(block.ln2(x))
        layout = CropLayout(0, tuple(range(1, len(crops))), tiling)
        tokens = self.vision.project(self.vision.post_ln(x), [layout])
        bos = self.text.embed(torch.tensor([[self.bos]], device=tokens.device))
        self.run(torch.cat([bos, tokens], dim=1), 0)

    def ask(self, question: str) -> None:
        """Prefill the question and decode two tokens, in place of whatever followed the image before."""
        ids = torch.tensor([self.tagger.prompt_ids(question)], device=self.text.wte.device)
        position = self.prefix
        for _ in range(1 + DECODED_TOKENS):
            hidden = self.run(self.text.embed(ids), position)
            position += ids.shape[1]
            ids = self.text.logits(hidden[:, -1:]).argmax(-1)

    def run(self, x: Tensor, position: int) -> Tensor:
        """Run tokens (1, t, dim) through all layers, attending to every slot of the caches."""
        end = position + x.shape[1]
        cos, sin = self.text.rotary(torch.arange(position, end, device=x.device))
        mask = self.mask[:, :, position:end]
        for block, (keys, values) in zip(self.text.layers, self.caches, strict=True):
            normed = block.ln(x)
            query, key, value = block.attn.split(normed)
            keys[:, :, position:end], values[:, :, position:end] = rotate(key, cos, sin), value
            seen = F.scaled_dot_product_attention(
                rotate(query, cos, sin), keys, values, attn_mask=mask, enable_gqa=query.shape[1] != keys.shape[1]
            )
            x = x + block.attn.merge(seen) + block.mlp(normed)
        return x


# -- measuring ---------------------------------------------------------------------------------------------------------
def seconds(device: torch.device, run: Callable[[], object]) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def matmul_rate(device: torch.device, dtype: torch.dtype, rounding: Rounding = "") -> float:
    """Return what a big square product reaches, in FLOP/s (of bytes: as many operations): the best of three."""
    slow = device.type == "cpu" and dtype != torch.float32 and not cpu_computes_bfloat16()
    size = 1024 if slow else 4096 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device).mul_(32).to(torch.int8 if rounding == "int8" else dtype)
    if rounding == "fp8":
        levels, scales = round_to_float8(a)
        product = lambda: torch._scaled_mm(levels, levels.t(), scale_a=scales, scale_b=scales.t(), out_dtype=dtype)  # noqa: E731
    else:
        product = lambda: (torch._int_mm if rounding else torch.mm)(a, a)  # noqa: E731
    product()
    return 2 * size**3 / min(seconds(device, product) for _ in range(3))


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


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held so far: on the GPU if there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    bfloat16 = "bfloat16 in hardware" if cpu_computes_bfloat16() else "bfloat16 emulated, and slow"
    return f"{name}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {bfloat16}"


def parity(device: torch.device, dtype: str, *, most: int | None = None) -> float:
    """Return how far first-token logits are from the reference implementation's, rms, relative: the worst of all.

    Args:
        most: pictures at most; ``None`` for all.
    """
    expected = json.loads((VECTORS / "expected.json").read_text())
    recorded = load_file(VECTORS / "expected.safetensors")
    tagger = load_tagger(str(VECTORS), device=str(device), dtype=dtype, batch_size=6)
    pictures = [Image.open(VECTORS / record["file"]).convert("RGB") for record in expected["images"][:most]]
    worst = 0.0
    for name, question in expected["prompts"].items():
        for index, row in enumerate(tagger.first_token_logits(pictures, question).cpu()):
            wanted = recorded[f"image{index}.{name}.first_token_logits"]
            worst = max(worst, float((row - wanted).norm() / wanted.norm()))
    tagger.close()
    return worst


def launches_and_gaps(device: torch.device, run: Callable[[], object]) -> dict[str, float] | None:
    """Return how often a GPU is launched in one go, and for how much of its time nothing runs on it."""
    if device.type != "cuda":
        return None
    run()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        took = seconds(device, run)
    events = list(seen.events() or [])
    busy, end = 0.0, 0.0
    for event in sorted((e for e in events if e.device_type == DeviceType.CUDA), key=lambda e: e.time_range.start):
        busy += max(0.0, event.time_range.end - max(end, event.time_range.start))
        end = max(end, event.time_range.end)
    return {
        "kernels": sum(event.device_type == DeviceType.CUDA for event in events),
        "kernel_launches": sum("LaunchKernel" in event.name for event in events),
        "graph_launches": sum("GraphLaunch" in event.name for event in events),
        "seconds": took,
        "idle_share": max(0.0, 1 - busy / 1e6 / took),
    }


def measure_engine(
    tagger: Tagger, pictures: list[Image.Image], vocabulary: Vocabulary, detail: Detail
) -> tuple[float, float]:
    """Return seconds per image, and how many of them go to the questions."""
    device, weight = tagger._weight.device, tagger._weight
    whole = seconds(device, lambda: tagger.score(pictures, vocabulary, detail))
    images = min(len(pictures), tagger.batch_size)
    # What an image's keys and values hold makes no difference to the time.
    prefix = tagger._model.prefill(weight.new_zeros(images, tagger._prefix_length - 1, weight.shape[0]))
    tree = tagger._vocabulary_tree(vocabulary).tree
    ask = lambda: tagger._extend(tree, prefix, tree.readers)  # noqa: E731
    ask()
    return whole / len(pictures), median(seconds(device, ask) for _ in range(REPEATS)) / images


def measure_baseline(baseline: Sequential, pictures: list[Image.Image], vocabulary: Vocabulary) -> tuple[float, float]:
    """Return seconds per image, and how many of them go to the questions."""
    device = baseline.text.wte.device
    encoding = asking = 0.0
    baseline.ask(vocabulary.dimensions[0].question)
    for picture in pictures:
        encoding += seconds(device, lambda image=picture: baseline.encode(image))  # type: ignore[misc]
        for dimension in vocabulary:
            asking += seconds(device, lambda question=dimension.question: baseline.ask(question))  # type: ignore[misc]
    return (encoding + asking) / len(pictures), asking / len(pictures)


def disagreement(tagger: Tagger, plain: MoondreamForTagging, pictures: list[Image.Image], detail: Detail) -> float:
    """Return how far the engine's logits are from those of plain layers in the same format: rms, relative."""
    reference = Tagger(plain, tagger._tokenizer, model_id="random", revision="random", batch_size=1)
    question = DEFAULT_VOCABULARY.dimensions[0].question
    logits, expected = (each.first_token_logits(pictures, question, detail) for each in (tagger, reference))
    return float((logits - expected).norm() / expected.norm())


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
) -> dict[str, Any]:
    """Measure the cases one after another, round after round, with the baseline right behind the engine."""
    vocabulary = DEFAULT_VOCABULARY
    form = layer_form(device, dtype, rounding)
    model = random_model(device, dtype, form)
    if computes_fused(device):
        model.model.vision.align_patches(PATCH_MULTIPLE)
    tagger = Tagger(model, stand_in_tokenizer(vocabulary), model_id="random", revision="random", batch_size=batch_size)
    baseline: Sequential | None = None
    measured: dict[Case, list[Round]] = {case: [] for case in cases}
    peak, away = 0, 0.0
    with torch.inference_mode():
        if device.type != "cpu":
            # The first products of a shape take longer there: kernels are chosen, and memory is found.
            for case in cases:
                tagger.score([random_image(case, seed) for seed in range(batch_size)], vocabulary, case.detail)
        for number in range(rounds):
            baselines: dict[tuple[int, int], tuple[float, float]] = {}
            for case in cases:
                pictures = [random_image(case, seed) for seed in range(images)]
                before = matmul_rate(device, dtype, rounding)
                engine, engine_questions = measure_engine(tagger, pictures, vocabulary, case.detail)
                rate = (before + matmul_rate(device, dtype, rounding)) / 2
                if baseline is None:  # neither its weights nor its caches are the engine's memory
                    peak = peak_memory(device)
                    plain = model
                    if form or dtype == torch.float32:
                        plain = random_model(device, dtype).to(dtype)  # type: ignore[call-arg]
                    baseline = Sequential(plain, tagger)
                    if device.type != "cpu":
                        for warm in cases:
                            measure_baseline(baseline, [random_image(warm, 0)], vocabulary)
                    away = disagreement(tagger, plain, pictures[:1], case.detail)
                size = case.width, case.height
                if size not in baselines:
                    baselines[size] = measure_baseline(baseline, pictures, vocabulary)
                measured[case].append(Round(engine, engine_questions, *baselines[size], rate))
                print(
                    f"round {number + 1} of {rounds}: {case.name}, {engine:.2f} s an image", file=sys.stderr, flush=True
                )
        one_go = [random_image(cases[0], seed) for seed in range(batch_size)]
        gaps = launches_and_gaps(device, lambda: tagger.score(one_go, vocabulary, cases[0].detail))
    results = []
    for case, each in measured.items():
        crops = len(tagger.prepare(random_image(case, 0), case.detail).crops)
        results.append(summarised(case.name, crops, engine_flop(crops, tagger, vocabulary), each))
        print(describe(results[-1]), file=sys.stderr, flush=True)
    return {
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
    parser.add_argument("--json", action="store_true", help="write the whole report as JSON to stdout")
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.name in arguments.cases]
    device = resolve_device(arguments.device)
    on_cpu = device.type == "cpu"
    images = (1 if on_cpu else 16) if arguments.images is None else arguments.images
    batch_sizes = arguments.batch_sizes or ([1] if on_cpu else list(BATCH_SIZES))
    if not cases or min(images, arguments.rounds, *batch_sizes) < 1:
        parser.error(f"Nothing to measure. There are the cases {', '.join(case.name for case in CASES)}.")
    dtype = resolve_dtype(arguments.dtype, device)
    rounding = ROUNDINGS.get(arguments.dtype, "")
    formats = dict.fromkeys(("float32", str(dtype).removeprefix("torch.")))
    report: dict[str, Any] = {"parity": {name: parity(device, name) for name in formats}}
    print(f"away from the reference: {report['parity']}", file=sys.stderr, flush=True)
    if report["parity"]["float32"] > TOLERANCE:
        sys.exit("The engine does not compute what the reference does on this device: its speed means nothing.")

    def measured(batch_size: int, rounding: Rounding) -> dict[str, Any]:
        return measure(device, dtype, cases, max(images, batch_size), batch_size, arguments.rounds, rounding)

    report["batches"] = [measured(size, rounding) for size in batch_sizes]
    if not rounding and device.type == "cuda" and gpu_multiplies_float8(device):
        report["fp8"] = [measured(size, "fp8") for size in batch_sizes]
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for part in report["batches"]:
            print(f"{part['machine']}; {part['dtype']}; random weights; peak {part['peak_memory_gb']:.1f} GB")


if __name__ == "__main__":
    main()
