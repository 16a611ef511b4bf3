"""What a GPU does otherwise, done on a CPU: fixed shapes, batches in flight, one masked call, rounding to eight bits."""

import functools
import gc
import math
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlm.moondream import EngineError, Tagger, attention, devices, linear, load_tagger
from vlm.moondream.attention import attend_branches
from vlm.moondream.devices import compiled, fuses_gelu, fuses_the_right_gelu
from vlm.moondream.errors import DeviceLost, ModelUnavailable
from vlm.moondream.linear import Float8Linear, Linear, is_rounded, layer_form, round_to_float8
from vlm.moondream.modeling import rotary_table, rotate
from vlm.moondream.passes import CROPS, IMAGES, Passes
from vlm.moondream.scores import DimensionScore
from vlm.vocabulary import DEFAULT_VOCABULARY

from .checkpoints import TEXT, as_on_a_gpu, random_image, random_model, random_tagger, write_checkpoint

CPU = torch.device("cpu")
GPU = torch.device("cuda")
QUESTION = DEFAULT_VOCABULARY.dimensions[0].question


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return random_tagger(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def fused(tmp_path: Path) -> Iterator[Tagger]:
    with as_on_a_gpu():
        tagger = random_tagger(tmp_path)
        tagger._passes = Passes(capture=False)
        yield tagger


@pytest.fixture
def images() -> list[Image.Image]:
    sizes = [(640, 480), (300, 300), (200, 900), (378, 378), (1000, 700)]
    return [random_image(*size, seed) for seed, size in enumerate(sizes)]


def flat(results: list[dict[str, DimensionScore]]) -> list[float]:
    return [value for result in results for score in result.values() for value in (*score.probabilities, score.mass)]


# -- a tagger whose work goes through passes ---------------------------------------------------------------------------
def test_scores_are_the_same_as_on_a_cpu(plain: Tagger, fused: Tagger, images: list[Image.Image]) -> None:
    assert fused._model.model.vision.padding > 0
    expected = plain.score(images, DEFAULT_VOCABULARY)
    for batch_size in (1, 2, 5):
        fused.batch_size = batch_size
        for _ in range(2):  # the second time in buffers that hold the first one's rows
            assert flat(fused.score(images, DEFAULT_VOCABULARY)) == pytest.approx(flat(expected), rel=1e-4)
    logits, wanted = (tagger.first_token_logits(images, QUESTION) for tagger in (fused, plain))
    assert (logits - wanted).norm() <= 1e-5 * wanted.norm()
    assert fused.answers(images, [QUESTION], 5) == plain.answers(images, [QUESTION], 5)
    assert fused._passes is not None
    assert {key[1] for key in fused._passes._kept if key[0] == "crops"} <= set(CROPS)  # type: ignore[index]
    assert {key[1] for key in fused._passes._kept if key[0] != "crops"} <= set(IMAGES)  # type: ignore[index]


def test_a_tagger_goes_when_it_is_let_go(fused: Tagger, images: list[Image.Image]) -> None:
    """Nothing of it waits for the garbage collector: its memory is wanted by the next model."""
    with as_on_a_gpu():
        tagger = Tagger(fused._model, fused._tokenizer, model_id="", revision="")
    tagger._passes = Passes(capture=False)
    tagger.score(images[:1], DEFAULT_VOCABULARY)
    gone = weakref.ref(tagger)
    gc.disable()
    try:
        del tagger
        assert gone() is None
    finally:
        gc.enable()


def test_full_memory_forgets_the_passes(
    fused: Tagger, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = flat(fused.score(images, DEFAULT_VOCABULARY))
    scores, sizes = fused._scores, []

    def small(tree: object, tokens: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return scores(tree, tokens)  # type: ignore[arg-type]

    assert fused._passes is not None
    fused._passes.clear()
    monkeypatch.setattr(fused, "_scores", small)
    fused.batch_size = 5
    assert flat(fused.score(images, DEFAULT_VOCABULARY)) == pytest.approx(expected, rel=1e-4)
    assert (sizes, fused.batch_size) == ([4, 2, 2, 1], 2)


# -- batches in flight -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_results_belong_to_their_batches(kind: str, request: pytest.FixtureRequest, images: list[Image.Image]) -> None:
    tagger: Tagger = request.getfixturevalue(kind)
    tagger.batch_size = 2
    submitted = [tagger.submit(part, DEFAULT_VOCABULARY) for part in (images[:2], images[2:])]
    second, first = tagger.result(submitted[1]), tagger.result(submitted[0])
    assert flat([*first, *second]) == pytest.approx(flat(tagger.score(images, DEFAULT_VOCABULARY)), rel=1e-5)
    assert tagger.in_flight == 1  # a CPU has nothing to do meanwhile


def test_what_is_not_finite_is_told_with_the_result(tmp_path: Path) -> None:
    tagger = random_tagger(tmp_path)
    with torch.no_grad():
        tagger._model.model.text.lm_head.bias[7] = math.nan
    submitted = tagger.submit([random_image(64, 64)], DEFAULT_VOCABULARY)
    with pytest.raises(EngineError, match="not finite"):
        tagger.result(submitted)


# -- kernels -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_tree_in_one_masked_call(kv_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, (key, value) = torch.randn(2, 4, 13, 16), torch.randn(2, 2, kv_heads, 34, 16)
    mask = torch.rand(13, 13) < 0.5
    mask |= torch.eye(13, dtype=torch.bool)
    prefix, branch = ((key[:, :, part], value[:, :, part]) for part in (slice(0, 21), slice(21, None)))
    with torch.inference_mode():
        expected = attend_branches(query, prefix, branch, mask)
        monkeypatch.setattr(attention, "computes_fused", lambda _: True)
        seen = attend_branches(query, prefix, branch, mask)
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-6)


def test_a_gelu_is_fused_where_it_is_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fuses_gelu(CPU, torch.float32)
    layer, x = Linear(32, 48).requires_grad_(False), torch.randn(3, 5, 32)
    with torch.inference_mode():
        expected = layer.gelu(x)
        monkeypatch.setattr(linear, "fuses_gelu", lambda *_: True)
        fused = layer.gelu(x)  # a CPU's is the other form of GELU, less than a thousandth away
    assert fused.shape == expected.shape
    assert not torch.equal(fused, expected)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_trial_tells_the_forms_of_gelu_apart(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fuses_the_right_gelu(CPU, dtype)  # a CPU computes the form with the error function

    def computing(form: str, bend: float = 0.0) -> Callable[..., torch.Tensor]:
        def run(bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *, use_gelu: bool) -> torch.Tensor:
            assert use_gelu
            product = torch.addmm(bias, x, weight).float()
            return (torch.nn.functional.gelu(product, approximate=form) + bend).to(dtype)

        return run

    for form, bend, right in (("tanh", 0.0, True), ("none", 0.0, False), ("tanh", 0.01, False)):
        monkeypatch.setattr(torch, "_addmm_activation", computing(form, bend))
        assert fuses_the_right_gelu(CPU, dtype) is right


def test_the_prefix_keeps_no_more_than_keys_and_values() -> None:
    model = random_model()
    with torch.inference_mode():
        for images in (1, 3):
            for pair in model.prefill(torch.randn(images, 81, TEXT["dim"])):
                assert all(part.untyped_storage().nbytes() == part.nbytes for part in pair)


def test_padded_patches_change_nothing() -> None:
    model = random_model()
    vision = model.model.vision
    crops = torch.randint(0, 256, (2, 378, 378, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = vision.encode(crops)
    vision.align_patches(64)
    with torch.inference_mode():
        assert vision.patches(crops).shape[-1] % 64 == 0
        torch.testing.assert_close(vision.encode(crops), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="a machine without a compiler")
def test_what_is_compiled_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_compiles", lambda _: True)
    plain = rotate.__wrapped__  # type: ignore[attr-defined]
    turned = compiled(plain)
    for heads, tokens in ((4, 21), (3, 50)):
        x = torch.randn(2, heads, tokens, 16)
        cos, sin = (table[:tokens] for table in rotary_table(8, 64, CPU))
        with torch.inference_mode():
            torch.testing.assert_close(turned(x, cos, sin), plain(x, cos, sin), rtol=1e-5, atol=1e-6)


def test_many_kinds_of_tensors_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own limit is eight, behind which it runs the function as it is and says nothing."""
    made: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        made.append(len(made))
        return graph.forward

    monkeypatch.setattr(devices, "gpu_compiles", lambda _: True)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    double = compiled(lambda x: 2 * x)
    formats = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.int64)
    with torch.inference_mode():
        for dtype in formats:
            for shape in ((5, 7), (1, 7)):
                assert double(torch.ones(shape, dtype=dtype)).unique().tolist() == [2]
    assert len(made) == 2 * len(formats)


def test_what_cannot_be_compiled_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> object:
        def broken(*_: object) -> object:
            raise torch._dynamo.exc.TorchDynamoException("no compiler")

        return broken

    monkeypatch.setattr(devices, "gpu_compiles", lambda _: True)
    monkeypatch.setattr(torch, "compile", refuse)
    double = compiled(lambda x: 2 * x)
    with torch.inference_mode():
        assert [int(double(torch.tensor(value))) for value in (1, 2)] == [2, 4]
    assert len(caplog.records) == 1


# -- eight bits --------------------------------------------------------------------------------------------------------
def test_rows_are_scaled_to_the_whole_range_of_float8() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 64) * torch.logspace(-6, 6, 20)[:, None]
    x[3] = 0
    rounded, scales = round_to_float8(x)
    assert (rounded.dtype, scales.dtype, scales.shape) == (torch.float8_e4m3fn, torch.float32, (20, 1))
    restored = scales * rounded.float()
    assert ((restored - x).abs() <= x.abs() / 16 + scales / 256).all()
    assert (rounded.float().abs().amax(1)[scales[:, 0] > 1e-30] == 448).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_of_float8_are_close(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = Linear(96, 80).requires_grad_(False)
    x = torch.randn(2, 21, 96)
    x[0, 3] *= 1000  # a token far from the others costs the others nothing
    expected = layer(x)
    with torch.inference_mode():
        rounded = Float8Linear(layer.to(dtype))
        seen = rounded(x.to(dtype))
        assert seen.dtype == dtype
        for row, wanted in zip(seen.flatten(0, 1).float(), expected.flatten(0, 1), strict=True):
            assert (row - wanted).norm() <= 0.06 * wanted.norm()
        assert torch.equal(rounded.tail(x.to(dtype), 48), seen[..., 48:])
    assert {name for name, _ in rounded.named_buffers()} == {"weight", "scales"}  # which go where the layer goes
    assert {tensor.device.type for tensor in rounded.to_empty(device="meta").buffers()} == {"meta"}


def test_layers_that_no_kernel_takes_stay_as_they_are() -> None:
    form = layer_form(CPU, torch.float32, "fp8")
    assert form is not None
    for inputs, outputs, rounded in ((96, 80, True), (90, 80, False), (96, 84, False)):
        layer = Linear(inputs, outputs).requires_grad_(False)
        assert isinstance(form("fc1", layer), Float8Linear) is is_rounded("fc1", layer, "fp8") is rounded
    assert is_rounded("fc1", Linear(90, 84), "int8")
    assert not is_rounded("model.text.lm_head", Linear(96, 80), "fp8")


def test_a_model_loads_in_float8_where_a_gpu_multiplies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, whose kernels take the same arguments; the check of the device is another test's."""
    folder = str(write_checkpoint(tmp_path, random_model()))
    exact = load_tagger(folder, device="cpu", dtype="float32")
    monkeypatch.setattr("vlm.moondream.loading.resolve_dtype", lambda *_: torch.float32)
    rounded = load_tagger(folder, device="cpu", dtype="fp8")
    assert (exact.dtype, rounded.dtype) == ("float32", "fp8")
    kinds = {type(m) for name, m in rounded._model.named_modules() if name.endswith(("fc1", "qkv", "proj"))}
    assert kinds == {Float8Linear}
    image = [random_image(640, 480)]
    logits, expected = (tagger.first_token_logits(image, QUESTION) for tagger in (rounded, exact))
    assert 1e-4 < (logits - expected).norm() / expected.norm() < 0.15


def test_float8_needs_a_gpu_that_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelUnavailable, match=r"“fp8” is for NVIDIA GPUs .* cpu is none .* DATAVISOR_VLM_DTYPE to auto"
    ):
        devices.resolve_dtype("fp8", CPU)
    for capability, multiplies in (((8, 9), False), ((9, 0), True), ((12, 0), True)):
        devices.gpu_multiplies_float8.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None, own=capability: own)
        assert devices.gpu_multiplies_float8(GPU) is multiplies
    devices.gpu_multiplies_float8.cache_clear()
    assert layer_form(GPU, torch.bfloat16, "fp8") is not None


# -- failing softly ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("CUDA out of memory. Tried to allocate 20 MiB", "has no memory left to begin with"),
        (
            "CUDA error: no kernel image is available for execution on the device",
            "is too old or too new for this PyTorch",
        ),
        (
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
            "has no memory left to begin with",
        ),
        (
            "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(…)`",
            "Choose another dtype with DATAVISOR_VLM_DTYPE",
        ),
        (
            "CUDA error: unknown error\nCUDA kernel errors might be",
            r"does not work \(CUDA error: unknown error\)\. Look",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used_is_told_at_load(reason: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(reason)

    monkeypatch.setattr(torch, "ones", fails)
    monkeypatch.setattr(devices, "_name_of", lambda _: "An old GPU")
    with pytest.raises(ModelUnavailable, match=told):
        devices.check_device(GPU, torch.float16)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_gpu_that_is_lost_is_told(error: RuntimeError, plain: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(plain, "_image_tokens", fails)
    with pytest.raises(
        EngineError, match=r"The GPU stopped working \(.*\)\. What was committed is kept.* resume the run"
    ):
        plain.score([random_image(64, 64)], DEFAULT_VOCABULARY)


@pytest.mark.parametrize("library", ["CUBLAS", "CUDNN"])
def test_what_a_gpu_has_no_kernel_for_is_no_lost_gpu(
    library: str, plain: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError(f"{library} error: {library}_STATUS_NOT_SUPPORTED when calling it")
    assert devices.lost(error) is None

    def fails(_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(plain, "_image_tokens", fails)
    with pytest.raises(EngineError, match=r"no kernel for this number format .* Choose another dtype") as told:
        plain.score([random_image(64, 64)], DEFAULT_VOCABULARY)
    assert not isinstance(told.value, DeviceLost)
