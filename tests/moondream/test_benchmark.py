"""The benchmark's baseline must do the same work as the engine, or its ratio means nothing."""

from typing import Any

import pytest
import torch

from benchmarks import engine
from vlm.moondream import Tagger
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.devices import cpu_multiplies_bytes
from vlm.moondream.linear import Rounding
from vlm.vocabulary import DEFAULT_VOCABULARY

from .checkpoints import TEXT, VISION

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
    baseline, image = engine.Sequential(model, tagger), engine.random_image(engine.CASES[0], 0)
    question = DEFAULT_VOCABULARY.dimensions[0].question
    with torch.inference_mode():
        baseline.encode(image)
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


def test_parity_comes_first() -> None:
    assert engine.parity(CPU, "float32", most=1) < engine.TOLERANCE / 10
    assert engine.launches_and_gaps(CPU, lambda: None) is None
