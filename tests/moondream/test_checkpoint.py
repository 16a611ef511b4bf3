"""Reading weights: names, shapes and counts of the published checkpoint, and what happens to files that do not fit."""

import json
import math
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.ports import reserved
from vlm.moondream import (
    LoadProgress,
    ModelUnavailable,
    Tagger,
    devices,
    hub,
    identity,
    linear,
    load_tagger,
    loading,
    to_fetch,
)
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.modeling import CropLayout, MoondreamForTagging

from .checkpoints import VECTORS, random_model, write_checkpoint

PUBLISHED_TENSORS = 592
PUBLISHED_PARAMETERS = 1_927_237_104
# The pointing and detection heads, which are not loaded.
REGION = {
    "coord_features": (1, 128),
    "coord_encoder.weight": (2048, 256),
    "coord_encoder.bias": (2048,),
    "coord_decoder.fc1.weight": (8192, 2048),
    "coord_decoder.fc1.bias": (8192,),
    "coord_decoder.fc2.weight": (1024, 8192),
    "coord_decoder.fc2.bias": (1024,),
    "size_features": (2, 256),
    "size_encoder.weight": (2048, 512),
    "size_encoder.bias": (2048,),
    "size_decoder.fc1.weight": (8192, 2048),
    "size_decoder.fc1.bias": (8192,),
    "size_decoder.fc2.weight": (2048, 8192),
    "size_decoder.fc2.bias": (2048,),
}


def published_names() -> set[str]:
    pairs = [
        *(
            f"text.blocks.{i}.{part}"
            for i in range(24)
            for part in ("ln", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ),
        *(
            f"vision.blocks.{i}.{part}"
            for i in range(27)
            for part in ("ln1", "ln2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ),
        *(f"text.{part}" for part in ("post_ln", "lm_head")),
        *(f"vision.{part}" for part in ("patch_emb", "post_ln", "proj_mlp.fc1", "proj_mlp.fc2")),
    ]
    names = {f"{pair}.{leaf}" for pair in pairs for leaf in ("weight", "bias")}
    names |= {"text.wte", "vision.pos_emb"} | {f"region.{name}" for name in REGION}
    return {f"model.{name}" for name in names}


# -- the published checkpoint ------------------------------------------------------------------------------------------
def test_names_and_size_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        model = MoondreamForTagging(MoondreamConfig())
    state = model.state_dict()
    assert set(state) | {f"model.region.{name}" for name in REGION} == published_names()
    assert len(state) + len(REGION) == PUBLISHED_TENSORS
    count = sum(tensor.numel() for tensor in state.values()) + sum(map(math.prod, REGION.values()))
    assert count == PUBLISHED_PARAMETERS
    assert not list(model.buffers())  # transformers builds models without memory, where a buffer's content is lost


def test_shapes_of_the_full_size_model_in_bfloat16() -> None:
    with torch.device("meta"):
        model = MoondreamForTagging(MoondreamConfig()).to(dtype=torch.bfloat16)  # type: ignore[call-arg]
        features = model.encode_crops(torch.empty(9, 378, 378, 3, dtype=torch.uint8))
    assert features.shape == (9, 729, 1152)
    assert features.dtype == torch.bfloat16


def test_from_pretrained_reads_a_folder() -> None:
    loaded: Any = MoondreamForTagging.from_pretrained(VECTORS, output_loading_info=True, dtype=torch.float32)
    model, info = loaded
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    stored = load_file(VECTORS / "model.safetensors")
    state = model.state_dict()
    assert set(state) == {name for name in stored if ".region." not in name}
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in state.items())
    tokenizer = Tokenizer.from_file(str(VECTORS / "tokenizer.json"))
    tagger = Tagger(model, tokenizer, model_id="folder", revision="local")
    question = json.loads((VECTORS / "expected.json").read_text())["prompts"]["setting"]
    logits = tagger.first_token_logits([Image.open(VECTORS / "images" / "5_1x1.png")], question)[0]
    expected = load_file(VECTORS / "expected.safetensors")["image5.setting.first_token_logits"]
    assert (logits - expected).norm() <= 1e-5 * expected.norm()


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)
    again = MoondreamForTagging.from_pretrained(tmp_path)
    assert again.config.text == model.config.text
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_model_trains() -> None:
    model = random_model()
    tokens = torch.tensor([1, 24, 2])
    crops = torch.randint(0, 256, (1, 378, 378, 3), dtype=torch.uint8)
    logits = model(
        crops,
        [CropLayout(0, (0,), (1, 1))],
        tokens,
        torch.arange(3) + 82,
        torch.ones(3, 3, dtype=torch.bool).tril(),
        torch.tensor([2]),
    )
    logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# -- a folder ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), random_model())


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_loading_honours_the_dtype_and_reports(dtype: str, folder: Path) -> None:
    reports: list[LoadProgress] = []
    tagger = load_tagger(str(folder), device="cpu", dtype=dtype, progress=reports.append)
    assert (tagger.dtype, tagger.device, tagger.revision, tagger.model_id) == (
        dtype,
        "cpu",
        identity(str(folder)),
        str(folder),
    )
    assert {parameter.dtype for parameter in tagger._model.parameters()} == {getattr(torch, dtype)}
    assert {report.stage for report in reports} == {"load"}
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1].total > 0
    assert not tagger.demonstration
    tagger.close()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_files_give_float32s_results_in_half_of_its_memory(
    kind: torch.dtype, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(folder, lambda tensors: tensors.update({name: tensor.to(kind) for name, tensor in tensors.items()}))
    narrow = load_tagger(str(folder), device="cpu", dtype="float32")
    assert {(p.dim() == 2, p.dtype) for p in narrow._model.parameters()} == {(True, kind), (False, torch.float32)}
    wide = load_tagger(str(folder), device="cpu", dtype="float32")
    wide._model.float()
    assert narrow.dtype == wide.dtype == "float32"

    image = Image.effect_noise((200, 90), 80).convert("RGB")
    expected = wide.first_token_logits([image], "Is it dark?")
    assert torch.equal(narrow.first_token_logits([image], "Is it dark?"), expected)
    monkeypatch.setattr(linear, "WIDENED_AT_ONCE", 100)  # a few rows at a time
    piecewise = narrow.first_token_logits([image], "Is it dark?")
    assert (piecewise - expected).norm() <= 1e-5 * expected.norm()
    assert narrow.answer([image], "Is it dark?") == wide.answer([image], "Is it dark?")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def lose(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("model.text.wte"))


def add(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"model.text.blocks.9.ln.bias": torch.zeros(2)}))


def reshape(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"model.vision.pos_emb": torch.zeros(1, 2, 32)}))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def remove(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def garble_configuration(folder: Path) -> None:
    (folder / "config.json").write_text('{"config": {"text": {"dim": 7}}}')


def garble_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def use_larger_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"extra{i}" for i in range(200)])
    tokenizer.save(str(folder / "tokenizer.json"))


def claim_to_be_published(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "moondream1", "config": {}}')


def configure(part: str, **dims: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        content["config"][part] |= dims
        (folder / "config.json").write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose, r"lacks tensors: model\.text\.wte\. .*take those of vikhyatk/moondream2"),
        (add, r"has unknown tensors: model\.text\.blocks\.9\.ln\.bias"),
        (reshape, r"model\.vision\.pos_emb has the shape \(1, 2, 32\) instead of \(1, 81, 32\)"),
        (truncate, r"cannot be read as safetensors: .* Delete it and fetch it again"),
        (remove, r"lacks model\.safetensors\. Put the model's"),
        (garble_configuration, r"not a configuration of this architecture: dim 7"),
        (garble_tokenizer, r"is not a tokenizer: .* Take the one that came"),
        (use_larger_tokenizer, r"has 620 tokens and the model 512: they do not belong together"),
        (claim_to_be_published, r"instead of the 3,854,538,968 of model\.safetensors: .* state their dimensions"),
        (configure("text", n_heads=0), r"not a configuration of this architecture: n_heads is 0 instead of a positive"),
        (configure("text", n_heads=5), r"dim 64, n_heads 5 and n_kv_heads 4 do not divide"),
        (configure("vision", enc_n_heads=5), r"enc_n_heads 5 does not divide enc_dim 32"),
        (configure("vision", overlap_margin=5), r"overlap_margin 5 leave no inner patches"),
        (configure("vision", proj_out_dim=65), r"proj_out_dim 65 is not the decoder's dim 64"),
    ],
)
def test_a_damaged_checkpoint(damage: Callable[[Path], None], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ModelUnavailable, match=message):
        load_tagger(str(folder), device="cpu", dtype="float32")


def test_a_stale_tokenizer_beside_the_published_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.PINNED, "weights", hub.PinnedFile("a/b", "1", "model.safetensors"))  # whichever
    claim_to_be_published(folder)
    with pytest.raises(ModelUnavailable, match=r"is not the tokenizer\.json that DataVisor .* moondream/starmie-v1"):
        load_tagger(str(folder), device="cpu", dtype="float32")


def test_an_unknown_detail_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="detail is “medium”; it must be “full” or “low”"):
        load_tagger("nowhere", detail="medium")  # type: ignore[arg-type]


def test_what_the_progress_callback_raises_comes_out(folder: Path) -> None:
    def stop(_: LoadProgress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        load_tagger(str(folder), device="cpu", dtype="float32", progress=stop)


def test_region_tensors_are_skipped(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"model.region.coord_features": torch.zeros(1, 8)}))
    names = dict(load_tagger(str(folder), device="cpu", dtype="float32")._model.named_parameters())
    assert not any("region" in name for name in names)


def test_a_demonstration_says_so(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"demonstration": True}))
    assert load_tagger(str(folder), device="cpu", dtype="float32").demonstration


def test_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "free_memory", lambda device: 1000)
    with pytest.raises(ModelUnavailable, match=r"need 0\.\d GB on cpu in float32, and 0\.0 GB are free. Close other"):
        load_tagger(str(folder), device="cpu", dtype="float32")


def test_the_weights_alone_are_not_enough_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = (folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(loading, "free_memory", lambda device: weights + 1000)
    with pytest.raises(ModelUnavailable, match="The model and an image need"):
        load_tagger(str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ],
)
def test_memory_that_fills_while_loading(full: RuntimeError, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(report: LoadProgress) -> None:
        if 2 * report.done > report.total:
            raise full

    with pytest.raises(ModelUnavailable, match="cpu ran out of memory while the model was loaded") as info:
        load_tagger(str(folder), device="cpu", dtype="float32", progress=fill)
    held, trace = [], info.value.__traceback__
    while trace:
        held += [value for value in trace.tb_frame.f_locals.values() if isinstance(value, MoondreamForTagging)]
        trace = trace.tb_next
    assert held
    assert all(parameter.is_meta for model in held for parameter in model.parameters())


def test_batch_size_from_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> int:
        return load_tagger(str(folder), device="cpu", dtype="float32").batch_size

    assert chosen() == 4
    config = MoondreamConfig()
    sizes = {}
    for gigabytes in (2, 10, 70):
        monkeypatch.setattr(loading, "free_memory", lambda device, free=gigabytes: free * 10**9)
        sizes[gigabytes] = loading._auto_batch_size(config, torch.device("cuda"), torch.bfloat16)
    assert 1 == sizes[2] < sizes[10] < sizes[70] == 32
    # On a CPU a second image of the published size would push the first out of the cache.
    assert loading._auto_batch_size(config, torch.device("cpu"), torch.bfloat16) == 1


# -- the hub's name, without a hub -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"revision": "2024-08-26"}, "“2024-08-26” of vikhyatk/moondream2 is not supported.*Use “2025-06-21”"),
        ({"model": "someone/else"}, "neither vikhyatk/moondream2 nor a folder"),
        ({"device": "tpu"}, "“tpu” is not known: use auto, cpu, mps, cuda or cuda:1"),
        ({"device": "cpu:1"}, "“cpu:1” is not known"),
        ({"device": "cuda:"}, "“cuda:” is not known"),
        ({"device": "cuda:one"}, "“cuda:one” is not known"),
        ({"dtype": "int4"}, "“int4” is not known: use auto, float32, bfloat16, float16, int8 or fp8"),
    ],
)
def test_arguments_that_mean_nothing(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message):
        load_tagger(**({"device": "cpu"} | arguments))  # type: ignore[arg-type]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_offline_without_a_cache(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelUnavailable, match=r"is not in the cache .*HF_HUB_OFFLINE is set\. Connect this machine once"
    ):
        load_tagger(device="cpu")


@pytest.fixture
def unheard() -> Iterator[int]:
    """A port at which nobody answers."""
    with reserved() as held:
        yield held.getsockname()[1]


def test_without_a_network_nobody_waits_for_the_hubs_retries(
    empty_cache: Path, unheard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(*args: object, local_files_only: bool = False, **kwargs: object) -> str:
        asked.append("cache" if local_files_only else "hub")
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unheard}")
    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr("vlm.moondream.hub.shutil.disk_usage", lambda path: SimpleNamespace(free=10**12))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ModelUnavailable, match="cannot be reached from here"):
        hub.fetch(hub.PINNED["weights"], lambda _: None)
    assert asked == ["cache"]

    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.example")
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{unheard}")
    assert not hub._is_reachable()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert hub._is_reachable()


def test_what_is_to_be_fetched(empty_cache: Path) -> None:
    assert to_fetch(hub.MODEL) == 3_854_538_968
    assert to_fetch(str(empty_cache)) == 0


def test_too_little_disk(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vlm.moondream.hub.shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(ModelUnavailable, match=r"needs 3\.9 GB below .*, where 1\.0 GB are free\. Make room"):
        hub.fetch(hub.PINNED["weights"], lambda _: None)


def test_verification_is_remembered(empty_cache: Path) -> None:
    path = empty_cache / "file"
    path.write_bytes(b"content")
    digest = "ed7002b439e9ac84"
    reports: list[LoadProgress] = []
    for _ in range(2):
        hub.verify(hub.PinnedFile("a/b", "1", "file", 7, digest), path, reports.append)
    assert reports == [LoadProgress("verify", 7, 7)]
    path.write_bytes(b"CONTENT")
    with pytest.raises(ModelUnavailable, match=f"instead of {digest}. Delete it"):
        hub.verify(hub.PinnedFile("a/b", "1", "file", 7, digest), path, reports.append)
    with pytest.raises(ModelUnavailable, match="has 7 bytes instead of the 8 of file"):
        hub.verify(hub.PinnedFile("a/b", "1", "file", 8, digest), path, reports.append)


# -- devices -----------------------------------------------------------------------------------------------------------
def test_the_best_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: have["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: have["mps"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device("auto") == torch.device("cuda")
    assert devices.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ModelUnavailable, match=r"“cuda:2” is not there: this machine has 2 GPU"):
        devices.resolve_device("cuda:2")
    have["cuda"] = False
    assert devices.resolve_device("auto") == torch.device("mps")
    with pytest.raises(ModelUnavailable, match="“cuda:1” is not there: no NVIDIA GPU"):
        devices.resolve_device("cuda:1")
    have["mps"] = False
    assert devices.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ModelUnavailable, match="“mps” is not there: it needs a Mac"):
        devices.resolve_device("mps")


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": False}, torch.float32),
    ],
)
def test_bfloat16_where_the_cpu_computes_it(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(capabilities))
    devices.cpu_computes_bfloat16.cache_clear()
    try:
        assert devices.resolve_dtype("auto", torch.device("cpu")) == dtype
    finally:
        devices.cpu_computes_bfloat16.cache_clear()


def test_accelerators_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.resolve_dtype("auto", torch.device("mps")) == torch.float16
    capabilities = {torch.device("cuda:0"): (9, 0), torch.device("cuda:1"): (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    for device, dtype in (("cuda:0", torch.bfloat16), ("cuda:1", torch.float16)):
        assert devices.resolve_dtype("auto", torch.device(device)) == dtype


def test_memory_that_pytorch_keeps_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert devices.free_memory(torch.device("cuda")) == 120


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="a system that does not tell what is free")
def test_a_container_has_what_it_has_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CONTROL_GROUP", tmp_path)
    machine = devices.free_memory(torch.device("cpu"))
    assert machine is not None
    for name, content in (("max", "5000\n"), ("current", "3000\n"), ("stat", "anon 9\ninactive_file 400\n")):
        (tmp_path / f"memory.{name}").write_text(content)
    assert devices.free_memory(torch.device("cpu")) == 2400
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory(torch.device("cpu")) == pytest.approx(machine, rel=0.2)


def private_memory() -> int:
    """Return the bytes that this process alone has; those of a file that it reads are not among them."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))


def published_state() -> dict[str, torch.Tensor]:
    """Names and shapes of the published model's tensors, without their memory."""
    with torch.device("meta"):
        return dict(MoondreamForTagging(MoondreamConfig()).state_dict())


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the published size in bfloat16, whose weights are zeros that take no room on the disk."""
    folder = tmp_path_factory.mktemp("full-size")
    state = published_state()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    shapes |= {f"model.region.{name}": shape for name, shape in REGION.items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    assert end == 2 * PUBLISHED_PARAMETERS
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)
    (folder / "config.json").write_text('{"config": {"text": {"dim": 2048}}}')
    shutil.copy(VECTORS / "tokenizer.json", folder)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a system that does not tell what a process holds")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_full_size_file_loads_without_a_second_copy(
    dtype: str, full_size: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Plain layers leave the weights in the file's own pages, so this takes no memory.
    monkeypatch.setattr(loading, "layer_form", lambda *_, **__: None)
    monkeypatch.setattr(loading, "free_memory", lambda device: None)
    reports: list[LoadProgress] = []
    own = [private_memory()]

    def watch(report: LoadProgress) -> None:
        reports.append(report)
        own.append(private_memory())

    tagger = load_tagger(str(full_size), device="cpu", dtype=dtype, progress=watch)
    assert max(own) - own[0] < 2e8  # a single tensor that is copied takes up to 2.1e8, all of them 3.7e9
    state = published_state()
    assert len(reports) == len(state) == PUBLISHED_TENSORS - len(REGION)
    matrices = sum(tensor.numel() for tensor in state.values() if tensor.dim() == 2)
    rest = sum(tensor.numel() for tensor in state.values()) - matrices
    size = getattr(torch, dtype).itemsize
    assert reports[-1].done == reports[-1].total == 2 * matrices + size * rest < 4e9
    assert tagger.dtype == dtype
    tagger.close()


# -- what a checkpoint is ----------------------------------------------------------------------------------------------
def test_a_checkpoint_is_known_by_its_bytes_and_not_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    one = write_checkpoint(tmp_path / "one", random_model())
    shutil.copytree(one, tmp_path / "copy")
    other = write_checkpoint(tmp_path / "other", random_model(seed=1))
    assert identity(str(one)) == identity(str(tmp_path / "copy")) != identity(str(other))
    assert identity(str(one)).startswith("sha256:")
    assert identity(hub.MODEL) == hub.REVISION
    (other / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"is not a complete checkpoint: No such file.*tokenizer\.json"):
        identity(str(other))


def test_a_copy_of_the_published_model_is_that_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    folder = write_checkpoint(tmp_path / "published", random_model())
    for role in ("weights", "tokenizer"):
        known = hub.sha256_of(folder / hub.PINNED[role].name)[:16]
        monkeypatch.setitem(hub.PINNED, role, replace(hub.PINNED[role], sha256=known))
    assert identity(str(folder)) == hub.REVISION


def test_bytes_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub, "_digests", {})
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    reads: list[LoadProgress] = []
    first = hub.sha256_of(path, reads.append)
    assert (hub.sha256_of(path, reads.append), len(reads)) == (first, 1)
    monkeypatch.setattr(hub, "_digests", {})  # as in the next process
    assert (hub.sha256_of(path, reads.append), len(reads)) == (first, 1)
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert hub.sha256_of(path, reads.append) != first


def test_a_changed_checkpoint_is_said(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "own", random_model())
    before = identity(str(folder))
    assert load_tagger(str(folder), before, device="cpu").revision == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-200:] = bytes(200)
    (folder / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(ModelUnavailable, match=rf"is not the one that is meant: it is sha256:.* now, and was {before}"):
        load_tagger(str(folder), before, device="cpu")
    assert load_tagger(str(folder), device="cpu").revision == identity(str(folder)) != before
