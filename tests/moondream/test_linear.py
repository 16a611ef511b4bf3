"""The forms of a linear layer must compute what the layer does."""

from pathlib import Path

import pytest
import torch

from vlm.moondream import LoadProgress, devices, load_tagger, loading
from vlm.moondream.devices import cpu_multiplies_bytes, cpu_packs_bfloat16
from vlm.moondream.errors import ModelUnavailable
from vlm.moondream.linear import (
    Linear,
    PackedLinear,
    QuantizedLinear,
    layer_form,
    quantize,
)

from .checkpoints import random_image, random_model, write_checkpoint

CPU = torch.device("cpu")
QUESTION = "Is this scene indoor or outdoor? One word only."

packs = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")  # type: ignore[no-untyped-call]
multiplies_bytes = pytest.mark.skipif(not cpu_multiplies_bytes(), reason="a CPU without products of bytes")


def layer_and_input(dtype: torch.dtype = torch.float32) -> tuple[Linear, torch.Tensor]:
    torch.manual_seed(0)
    layer = Linear(96, 80).requires_grad_(False).to(dtype)
    return layer, torch.randn(2, 21, 96).to(dtype)


def distance(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return float((seen.float() - expected.float()).norm() / expected.float().norm())


@packs
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, 1e-6),
        pytest.param(
            torch.bfloat16,
            5e-3,
            marks=pytest.mark.skipif(not cpu_packs_bfloat16(), reason="a CPU without products of bfloat16"),
        ),
    ],
)
def test_packed_layers_compute_the_same(dtype: torch.dtype, tolerance: float) -> None:
    layer, x = layer_and_input(dtype)
    packed = PackedLinear(layer)
    with torch.inference_mode():
        for batch in (x, x.transpose(0, 1), x[:, :1]):
            assert packed(batch).dtype == dtype
            assert distance(packed(batch), layer(batch)) <= tolerance
            assert distance(packed.gelu(batch), layer.gelu(batch)) <= tolerance
            assert distance(packed.tail(batch, 48), layer.tail(batch, 48)) <= tolerance


@packs
def test_a_packed_layer_refuses_to_be_saved() -> None:
    model = torch.nn.Sequential(PackedLinear(layer_and_input()[0]))
    with pytest.raises(RuntimeError, match=r"0\.weight is in a form for this machine alone\. Save the model"):
        model.state_dict()


@pytest.mark.skipif(not cpu_packs_bfloat16(), reason="a CPU without products of bfloat16")
def test_a_model_loads_packed(tmp_path: Path) -> None:
    folder = str(write_checkpoint(tmp_path, random_model()))
    exact, packed = (load_tagger(folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    kinds = [module for module in packed._model.modules() if isinstance(module, PackedLinear)]
    assert len(kinds) == sum(isinstance(module, Linear) for module in exact._model.modules())
    image = random_image(640, 480)
    logits, expected = (tagger.first_token_logits([image], QUESTION) for tagger in (packed, exact))
    assert distance(logits, expected) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_rounded_to_the_nearest_of_255_levels(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 64) * torch.logspace(-6, 6, 50)[:, None]
    x[7] = 0
    x = x.to(dtype)
    levels, scales = quantize(x)
    assert (levels.dtype, scales.dtype) == (torch.uint8, dtype)
    assert levels.min() >= 1
    assert (levels[7] == 128).all()
    restored = scales.float() * (levels.float() - 128)
    assert ((restored - x.float()).abs() <= 0.5001 * scales.float()).all()
    # The whole range is used: every row but the empty one reaches an end of it.
    ends = (levels.int() - 128).abs().amax(1)
    assert all(126 <= end <= 127 for end in [*ends[:7].tolist(), *ends[8:].tolist()])


@multiplies_bytes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantized_layers_are_close(dtype: torch.dtype) -> None:
    layer, x = layer_and_input()
    x[0, 3] *= 1000  # a token far from the others costs the others nothing
    expected = layer(x)
    quantized = QuantizedLinear(layer.to(dtype))
    with torch.inference_mode():
        seen = quantized(x.to(dtype))
        assert seen.dtype == dtype
        for row, wanted in zip(seen.flatten(0, 1), expected.flatten(0, 1), strict=True):
            assert distance(row, wanted) < 0.025
        assert torch.equal(quantized.tail(x.to(dtype), 48), seen[..., 48:])
        assert torch.equal(quantized.gelu(x.to(dtype)), torch.nn.functional.gelu(seen, approximate="tanh"))


@multiplies_bytes
def test_a_model_loads_in_bytes(tmp_path: Path) -> None:
    folder = str(write_checkpoint(tmp_path, random_model()))
    exact, rounded = (load_tagger(folder, device="cpu", dtype=dtype) for dtype in ("float32", "int8"))
    assert (exact.dtype, rounded.dtype) == ("float32", "int8")
    kinds = {name: type(module) for name, module in rounded._model.named_modules() if name.endswith(("fc1", "lm_head"))}
    assert {kind for name, kind in kinds.items() if name.endswith("fc1")} == {QuantizedLinear}
    assert kinds["model.text.lm_head"] is (PackedLinear if cpu_packs_bfloat16() else Linear)
    image = random_image(640, 480)
    logits, expected = (tagger.first_token_logits([image], QUESTION) for tagger in (rounded, exact))
    assert 1e-4 < distance(logits, expected) < 0.1


def test_what_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing is for bfloat16 on a CPU that multiplies it, bytes are for all layers but the first and the last."""
    monkeypatch.setattr("vlm.moondream.linear.cpu_packs_bfloat16", lambda: True)
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16), ("mps", torch.float16)):
        assert layer_form(torch.device(device), dtype) is None
    assert layer_form(CPU, torch.bfloat16) is not None
    monkeypatch.setattr("vlm.moondream.linear.cpu_packs_bfloat16", lambda: False)
    assert layer_form(CPU, torch.bfloat16) is None
    seen = []

    class Form(Linear):
        def __init__(self, layer: Linear) -> None:
            super().__init__(1, 1)
            seen.append(layer)

    monkeypatch.setattr("vlm.moondream.linear.QuantizedLinear", Form)
    form = layer_form(CPU, torch.float32, "int8")
    assert form is not None
    layers = {name: module for name, module in random_model().named_modules() if isinstance(module, Linear)}
    left = {name for name, layer in layers.items() if form(name, layer) is layer}
    assert left == {"model.vision.patch_emb", "model.text.lm_head"}
    assert len(seen) == len(layers) - 2


class Copied(PackedLinear):
    """Keeps its weight as it is, so that any CPU can have it."""

    def __init__(self, layer: Linear) -> None:
        torch.nn.Module.__init__(self)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="a system that does not tell what is mapped")
@pytest.mark.parametrize("replaced", [False, True])
def test_layers_that_are_replaced_let_the_file_go(
    replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tensor that stayed in the file's pages would keep all of them, beside the copy that the layers made."""
    form = (lambda name, layer: Copied(layer)) if replaced else None
    monkeypatch.setattr(loading, "layer_form", lambda *_, **__: form)
    folder = write_checkpoint(tmp_path, random_model())
    tagger = load_tagger(str(folder), device="cpu", dtype="float32")
    mapped = str(folder / "model.safetensors") in Path("/proc/self/maps").read_text()
    assert mapped is not replaced
    tagger.close()


@multiplies_bytes
def test_bytes_need_less_memory_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(write_checkpoint(tmp_path, random_model()))
    reports: dict[str, LoadProgress] = {}
    for dtype in ("float32", "int8"):
        load_tagger(
            folder,
            device="cpu",
            dtype=dtype,
            progress=lambda report, dtype=dtype: reports.update({dtype: report}),  # type: ignore[misc]
        )
    assert reports["int8"].done == reports["int8"].total < reports["float32"].total
    monkeypatch.setattr(loading, "free_memory", lambda device: 1000)
    with pytest.raises(ModelUnavailable, match=r"GB on cpu in int8, and"):
        load_tagger(folder, device="cpu", dtype="int8")


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_bytes_need_a_cpu_that_multiplies_them(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_multiplies_bytes", lambda: device != "cpu")
    with pytest.raises(
        ModelUnavailable, match=rf"“int8” is for CPUs .* {device} has none .* DATAVISOR_VLM_DTYPE to auto"
    ):
        devices.resolve_dtype("int8", torch.device(device))
