"""The dimensions of a Moondream2 checkpoint.

The published ``config.json`` says ``"config": {}``: its dimensions are the defaults below. Other checkpoints of the
same architecture carry theirs under that key, in the layout ``{"text": {…}, "vision": {…}, "tokenizer": {…}}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from transformers import PreTrainedConfig

DEFAULT_QUERY_PREFIX = (1, 15381, 2)
DEFAULT_QUERY_SUFFIX = (3,)


class _Dimensions:
    """Whole numbers, all positive; unknown keys of a mapping (pointing, detection) are none of our business."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name} is {value!r} instead of a positive number.")

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: item for key, item in value.items() if key in known})


@dataclass(frozen=True)
class TextDimensions(_Dimensions):
    """The decoder: ``n_kv_heads`` < ``n_heads`` shares each key and value head among a group of query heads."""

    dim: int = 2048
    ff_dim: int = 8192
    n_layers: int = 24
    vocab_size: int = 51200
    max_context: int = 2048
    n_heads: int = 32
    n_kv_heads: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.n_heads or self.n_heads % self.n_kv_heads or self.head_dim % 4:
            raise ValueError(
                f"dim {self.dim}, n_heads {self.n_heads} and n_kv_heads {self.n_kv_heads} do not divide one another."
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of each head are rotated: the first half."""
        return self.head_dim // 2


@dataclass(frozen=True)
class VisionDimensions(_Dimensions):
    """The image encoder and the cropping that feeds it; sizes in pixels, ``overlap_margin`` in patches."""

    enc_dim: int = 1152
    enc_patch_size: int = 14
    enc_n_layers: int = 27
    enc_ff_dim: int = 4304
    enc_n_heads: int = 16
    proj_out_dim: int = 2048
    proj_inner_dim: int = 8192
    crop_size: int = 378
    in_channels: int = 3
    max_crops: int = 12
    overlap_margin: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.enc_dim % self.enc_n_heads:
            raise ValueError(f"enc_n_heads {self.enc_n_heads} does not divide enc_dim {self.enc_dim}.")
        if self.crop_size % self.enc_patch_size or self.grid <= 2 * self.overlap_margin:
            raise ValueError(
                f"crop_size {self.crop_size}, enc_patch_size {self.enc_patch_size} and overlap_margin {self.overlap_margin} "
                "leave no inner patches."
            )

    @property
    def grid(self) -> int:
        """Patches along one side of a crop: 27."""
        return self.crop_size // self.enc_patch_size

    @property
    def tokens(self) -> int:
        """Patches of one crop, and tokens of one image: 729."""
        return self.grid**2

    @property
    def patch_dim(self) -> int:
        return self.enc_patch_size**2 * self.in_channels


@dataclass(frozen=True)
class TokenDimensions:
    """Ids with a meaning of their own, and what stands around a question."""

    bos_id: int = 0
    eos_id: int = 0
    answer_id: int = 3
    query_prefix: tuple[int, ...] = DEFAULT_QUERY_PREFIX
    query_suffix: tuple[int, ...] = DEFAULT_QUERY_SUFFIX

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> Self:
        query = value.get("templates", {}).get("query", {})
        return cls(
            bos_id=value.get("bos_id", 0),
            eos_id=value.get("eos_id", 0),
            answer_id=value.get("answer_id", 3),
            query_prefix=tuple(query.get("prefix", DEFAULT_QUERY_PREFIX)),
            query_suffix=tuple(query.get("suffix", DEFAULT_QUERY_SUFFIX)),
        )


class MoondreamConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """A checkpoint's ``config.json``; ``demonstration`` marks weights that are no Moondream2 and must say so."""

    model_type = "moondream1"

    config: dict[str, Any] | None = None
    demonstration: bool = False

    @property
    def text(self) -> TextDimensions:
        return TextDimensions.from_mapping((self.config or {}).get("text", {}))

    @property
    def vision(self) -> VisionDimensions:
        return VisionDimensions.from_mapping((self.config or {}).get("vision", {}))

    def check(self) -> None:
        """Raise ``ValueError``, ``TypeError`` or ``AttributeError`` if these are no dimensions of this architecture."""
        text, vision, _ = self.text, self.vision, self.tokens
        if vision.proj_out_dim != text.dim:
            raise ValueError(f"proj_out_dim {vision.proj_out_dim} is not the decoder's dim {text.dim}.")

    @property
    def tokens(self) -> TokenDimensions:
        return TokenDimensions.from_mapping((self.config or {}).get("tokenizer", {}))
