"""The benchmark's baseline must do the same work as the engine, or its ratio means nothing."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import device, engine, parity, pipeline
from benchmarks.sequential import Sequential
from vlm.moondream import Tagger
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.crops import overlap_crops
from vlm.moondream.devices import cpu_multiplies_bytes
from vlm.moondream.linear import Rounding
from vlm.vocabulary import DEFAULT_VOCABULARY

from .checkpoints import TEXT, VECTORS, VISION

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    # The baseline crops as upstream does, so patches have their true size here.
    vision = VISION | {"enc_patch_size": 14, "overlap_margin": 4}
    monkeypatch.setattr(
        engine,
        "MoondreamConfig",
        lambda: MoondreamConfig(config={"text": TEXT | {"vocab_size": 16384}, "vision": vision}),
    )
    monkeypatch.setattr(engine, "matmul_rate", lambda device, dtype, rounding="": 1e12)


def test_the_baseline_scores_as_the_engine_does() -> None:
    model = engine.random_model(CPU, torch.float32)
    tagger = Tagger(model, engine.stand_in_tokenizer(DEFAULT_VOCABULARY), model_id="random", revision="random")
    baseline, image = Sequential(model, tagger.prompt_ids), engine.random_image(engine.CASES[0], 0)
    question = DEFAULT_VOCABULARY.dimensions[0].question
    with torch.inference_mode():
        baseline.encode(*overlap_crops(image))
        ids = torch.tensor([tagger.prompt_ids(question)])
        hidden = baseline.run(baseline.text.embed(ids), baseline.prefix)
        logits = baseline.text.logits(hidden[:, -1])
    expected = tagger.first_token_logits([image], question)
    assert (logits - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("name", "dtype", "rounding", "difference"),
    [
        ("float32", torch.float32, "", 1e-5),
        ("bfloat16", torch.bfloat16, "", 0.05),
        pytest.param(
            "int8",
            torch.float32,
            "int8",
            0.2,
            marks=pytest.mark.skipif(not cpu_multiplies_bytes(), reason="a CPU without products of bytes"),
        ),
    ],
)
def test_the_report(name: str, dtype: torch.dtype, rounding: Rounding, difference: float) -> None:
    report: dict[str, Any] = engine.measure(
        CPU, dtype, engine.CASES, images=1, batch_size=1, rounds=1, rounding=rounding
    )
    assert report["dtype"] == name
    assert report["logits_rms_difference"] <= difference
    assert (report["logits_rms_difference"] > 1e-4) is bool(rounding) or name == "bfloat16"
    rows = {row["case"]: row for row in report["measurements"]}
    assert [row["crops"] for row in rows.values()] == [9, 1, 1]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["engine_seconds"])
        assert row["matmul_share"] == pytest.approx(row["engine_tflop"] / row["engine_seconds"])
    assert rows["640x480 full"]["baseline_seconds"] == rows["640x480 low"]["baseline_seconds"]
    assert rows["378x378 full"]["engine_tflop"] == rows["640x480 low"]["engine_tflop"]
    assert rows["640x480 full"]["engine_tflop"] > rows["640x480 low"]["engine_tflop"]
    assert report["peak_memory_gb"] > 0


def test_figures_are_medians_over_rounds_and_ratios_are_within_one() -> None:
    rounds = [
        engine.Round(2.0, 0.5, 4.0, 1.0, 1e12),
        engine.Round(4.0, 1.0, 12.0, 4.0, 1e12),  # a busy moment, of the baseline more than of the engine
        engine.Round(1.0, 0.25, 2.5, 1.0, 1e12),
    ]
    row = engine.summarised("a case", crops=1, flop=10**12, rounds=rounds)
    assert (row.engine_seconds, row.baseline_seconds) == (2.0, 4.0)
    assert (row.lowest_ratio, row.ratio, row.highest_ratio) == (2.0, 2.5, 3.0)
    assert row.question_ratio == 4.0
    assert row.matmul_share == 0.5


def test_an_accelerators_baseline_is_measured_once_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    measure = Sequential.measure

    def counting(self: Sequential, images: Any, vocabulary: Any) -> tuple[float, float]:
        measured.append(len(images))
        return measure(self, images, vocabulary)

    monkeypatch.setattr(Sequential, "measure", counting)
    monkeypatch.setattr(engine, "DIFFERENT", 2)
    baseline = engine.Baseline(CPU, torch.float32, DEFAULT_VOCABULARY)
    baseline.measure_once(engine.CASES[1:], images=5)
    assert measured == [1, 2, 1, 2]  # each size to begin with, then so many pictures
    assert not baseline.in_memory
    result = engine.measure(CPU, torch.float32, engine.CASES[2:], 3, 2, 2, baseline=baseline)
    assert (len(measured), result["images"], baseline.in_memory) == (4, 4, False)
    assert result["logits_rms_difference"] <= 1e-5
    (row,) = result["measurements"]
    assert row["baseline_seconds"] == baseline.seconds(engine.CASES[2], 1, turn=0)[0]


def test_pictures_are_cut_before_the_clock_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = engine.random_model(CPU, torch.float32)
    tagger = engine.new_tagger(model, DEFAULT_VOCABULARY, batch_size=2)
    monkeypatch.setattr(engine, "DIFFERENT", 2)
    ready = engine.prepared(tagger, engine.CASES[2], 5)
    monkeypatch.setattr(Tagger, "prepare", None)
    with torch.inference_mode():
        whole, questions = engine.measure_engine(tagger, ready, DEFAULT_VOCABULARY, "full")
    assert 0 < questions < whole


def test_batches_are_in_flight_and_come_back_in_order() -> None:
    told: list[str] = []

    class Accelerator:
        batch_size, in_flight = 2, 2

        def submit(self, images: list[int], *_: object) -> list[int]:
            told.append(f"submit {images}")
            return images

        def result(self, images: list[int]) -> list[int]:
            told.append(f"result {images}")
            return images

    tagger: Any = Accelerator()
    images: Any = [1, 2, 3, 4, 5]
    assert device.score_in_flight(tagger, images, DEFAULT_VOCABULARY, "full") == images
    assert told == ["submit [1, 2]", "submit [3, 4]", "result [1, 2]", "submit [5]", "result [3, 4]", "result [5]"]


def test_gaps_are_what_no_kernel_covers() -> None:
    def event(name: str, kind: DeviceType, start: int, end: int) -> SimpleNamespace:
        return SimpleNamespace(name=name, device_type=kind, time_range=SimpleNamespace(start=start, end=end))

    events = [
        event("cudaGraphLaunch", DeviceType.CPU, 0, 10),
        event("cudaLaunchKernel", DeviceType.CPU, 12, 14),
        event("gemm", DeviceType.CUDA, 200_000, 500_000),
        event("gelu", DeviceType.CUDA, 300_000, 400_000),  # beside the first, on another stream
        event("copy", DeviceType.CUDA, 100_000, 250_000),
        event("softmax", DeviceType.CUDA, 600_000, 700_000),
        event("Memcpy HtoD (Pinned -> Device)", DeviceType.CUDA, 700_000, 1_000_000),
    ]
    gaps = device.launches_and_gaps(events, 1.0)
    assert gaps.pop("idle_share") == pytest.approx(0.5)
    assert gaps == {"kernels": 4, "kernel_launches": 1, "graph_launches": 1, "seconds": 1.0}
    assert pipeline.idle({**gaps, "idle_share": 0.5}, 0.3) == {"no kernel on the GPU, % of the time": 50.0}
    assert pipeline.idle(None, 0.3) == {"beyond the model alone, % of the time": 70.0}
    took, seen = device.watched(CPU, lambda: None)
    assert took >= 0
    assert seen is None


def test_a_whole_run_is_measured(tmp_path: Path) -> None:
    figures = pipeline.measure(tmp_path, str(VECTORS), 3, 2, "low", (64, 48), "cpu", "float32")
    assert (figures["images"], figures["batch"], figures["size"]) == (3, 2, "64x48")
    assert figures["in the model, % of the time"] > 0


def test_parity_comes_first() -> None:
    distance = parity.parity(CPU, "float32", most=1)
    assert distance.within(parity.Distance(1e-5, 1e-5, 1e-4))
    assert not distance.within(parity.Distance(1e-5, 1e-5, -1))


@pytest.mark.parametrize(("wrong", "told"), [("", ["parity", "parity", "batch"]), ("bfloat16", ["parity", "parity"])])
def test_what_is_known_is_told_before_the_rest(
    wrong: str, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    near, far = parity.Distance(0, 0, 0), parity.Distance(0, 0.06, 0)  # as the scores of another batch are

    def measure(*arguments: Any) -> dict[str, Any]:
        if arguments[4] > 1:
            raise KeyboardInterrupt  # a limit on time
        return {"batch_size": arguments[4]}

    monkeypatch.setattr(engine, "parity", lambda _, dtype: far if dtype == wrong else near)
    monkeypatch.setattr(engine, "measure", measure)
    monkeypatch.setattr(
        sys, "argv", ["engine", "--json", "--device", "cpu", "--dtype", "bfloat16", "--batch-sizes", "1", "2"]
    )
    with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
        engine.main()
    assert [json.loads(line)["part"] for line in capsys.readouterr().out.splitlines()] == told
    assert isinstance(ended.value, SystemExit) is bool(wrong)
