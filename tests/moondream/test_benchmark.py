"""The benchmark's baseline must do the same work as the engine, or its ratio means nothing."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks import engine
from vlm.moondream import Tagger
from vlm.moondream.configuration import MoondreamConfig
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
    monkeypatch.setattr(engine, "matmul_rate", lambda device, dtype: 1e12)


def test_the_baseline_scores_as_the_engine_does() -> None:
    model = engine.random_model(CPU, torch.float32)
    tagger = Tagger(model, engine.stand_in_tokenizer(DEFAULT_VOCABULARY), model_id="random", revision="random")
    baseline, image = engine.Sequential(model, tagger), engine.random_image(engine.CASES[0], 0)
    question = DEFAULT_VOCABULARY.dimensions[0].question
    with torch.inference_mode():
        baseline.encode(image)
        ids = torch.tensor([tagger.prompt_ids(question)])
        hidden = baseline.run(F.embedding(ids, baseline.text.wte), baseline.prefix)
        logits = baseline.text.logits(hidden[:, -1])
    expected = tagger.first_token_logits([image], question)
    assert (logits - expected).norm() <= 1e-5 * expected.norm()


def test_the_report() -> None:
    report: dict[str, Any] = engine.measure(CPU, torch.float32, engine.CASES, images=1, batch_size=1)
    rows = {row["case"]: row for row in report["measurements"]}
    assert [row["crops"] for row in rows.values()] == [9, 1, 1]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["engine_seconds"])
        assert row["matmul_share"] == pytest.approx(row["engine_tflop"] / row["engine_seconds"])
    assert rows["640x480 full"]["baseline_seconds"] == rows["640x480 low"]["baseline_seconds"]
    assert rows["378x378 full"]["engine_tflop"] == rows["640x480 low"]["engine_tflop"]
    assert rows["640x480 full"]["engine_tflop"] > rows["640x480 low"]["engine_tflop"]
    assert report["peak_memory_gb"] > 0
