"""Quantised checkpoints: made with the libraries that write them, or packed after their published formats.

Each function takes float32 matrices by name and returns the tensors that a checkpoint holds in their place, and the
weights that the format's own decoder makes of them.
"""

import json
from collections.abc import Mapping

import numpy as np
import torch

Stored = dict[str, torch.Tensor]
Expected = dict[str, np.ndarray]


def four_bit(weights: Mapping[str, torch.Tensor], kind: str = "nf4", *, nested: bool = True) -> tuple[Stored, Expected]:
    """Bitsandbytes' own 4-bit quantiser and state."""
    from bitsandbytes import functional

    stored, expected = {}, {}
    for name, weight in weights.items():
        codes, state = functional.quantize_4bit(
            weight.half(), quant_type=kind, compress_statistics=nested, blocksize=64
        )
        stored[name] = codes
        stored |= {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
        expected[name] = functional.dequantize_4bit(codes, state).float().numpy()
    return stored, expected


def eight_bit(weights: Mapping[str, torch.Tensor]) -> tuple[Stored, Expected]:
    """LLM.int8() of bitsandbytes."""
    from bitsandbytes import functional

    stored, expected = {}, {}
    for name, weight in weights.items():
        codes, largest, _ = functional.int8_vectorwise_quant(weight.half())
        stem = name.removesuffix("weight")
        stored |= {name: codes, stem + "SCB": largest, stem + "weight_format": torch.tensor(0, dtype=torch.uint8)}
        expected[name] = functional.int8_vectorwise_dequant(codes, largest).float().numpy()
    return stored, expected


def fine_grained_fp8(weights: Mapping[str, torch.Tensor], block: tuple[int, int]) -> tuple[Stored, Expected]:
    """Transformers' own block-wise FP8."""
    from types import SimpleNamespace

    from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

    quantiser = SimpleNamespace(quantization_config={"weight_block_size": list(block)})
    stored, expected = {}, {}
    for name, weight in weights.items():
        quantiser.quantization_config = SimpleNamespace(weight_block_size=list(block), scale_fmt="float")
        made = Fp8Quantize(quantiser).convert({name: weight})
        stored |= made
        decoded = Fp8Dequantize(quantiser).convert(
            {"weight": made[name], "weight_scale_inv": made[f"{name}_scale_inv"]}
        )
        expected[name] = decoded["weight"].float().numpy()
    return stored, expected


def compressed(weights: Mapping[str, torch.Tensor], form: str, **arguments: object) -> tuple[Stored, Expected]:
    """compressed-tensors' own compressors; scales from the largest value of each group, as its observers take them."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(form)
    stored, expected = {}, {}
    for name, weight in weights.items():
        rows, cols = weight.shape
        width = args.group_size or cols
        groups = weight.reshape(1, -1) if args.strategy == "tensor" else weight.reshape(rows, cols // width, width)
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
        if args.strategy == "tensor":
            scale, zero = scale.reshape(1), zero.reshape(1)
        made = compressor.compress({"weight": weight, "weight_scale": scale, "weight_zero_point": zero}, scheme)
        stem = name.removesuffix("weight")
        stored |= {stem + key: value for key, value in made.items()}
        expected[name] = compressor.decompress(dict(made), scheme)["weight"].float().numpy()
    return stored, expected


def _pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Rows of codes into 32-bit words, least significant first, across word borders."""
    single = np.unpackbits(codes.astype(np.uint8)[..., None], axis=-1, count=bits, bitorder="little")
    raw = np.packbits(single.reshape(len(codes), -1), axis=1, bitorder="little")
    return np.ascontiguousarray(raw).view(np.int32)


def _groups(weight: np.ndarray, bits: int, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes ``[rows, cols]``, zeros and scales ``[rows, groups]`` by rounding to nearest between each group's ends."""
    rows, cols = weight.shape
    grouped = weight.reshape(rows, cols // group, group)
    low, high = np.minimum(grouped.min(-1), 0), np.maximum(grouped.max(-1), 0)
    scales = ((high - low) / (2**bits - 1)).astype(np.float16).astype(np.float32)
    zeros = np.clip(np.round(-low / scales), 1, 2**bits - 1)
    codes = np.clip(np.round(grouped / scales[..., None]) + zeros[..., None], 0, 2**bits - 1)
    return codes.reshape(rows, cols), zeros, scales


def gptq(
    weights: Mapping[str, torch.Tensor], bits: int = 4, group: int = 32, *, version: int = 1, shuffled: bool = False
) -> tuple[Stored, Expected]:
    """The GPTQ layout after AutoGPTQ's ``QuantLinear.pack``; codes rounded to nearest, groups shuffled on request."""
    stored, expected = {}, {}
    for name, tensor in weights.items():
        order = np.random.default_rng(0).permutation(tensor.shape[1]) if shuffled else np.arange(tensor.shape[1])
        weight = tensor.numpy()[:, order]
        codes, zeros, scales = _groups(weight, bits, group)
        back = np.argsort(order)
        index = np.arange(tensor.shape[1])[back] // group
        codes = codes[:, back]
        stem = name.removesuffix("weight")
        stored |= {
            stem + "qweight": torch.from_numpy(_pack(codes, bits).T.copy()),
            stem + "qzeros": torch.from_numpy(_pack(zeros.T - (version == 1), bits)),
            stem + "scales": torch.from_numpy(scales.T.astype(np.float16)),
            stem + "g_idx": torch.from_numpy(index.astype(np.int32)),
        }
        expected[name] = ((codes - zeros[:, index]) * scales[:, index]).astype(np.float32)
    return stored, expected


def awq(weights: Mapping[str, torch.Tensor], group: int = 32) -> tuple[Stored, Expected]:
    """The GEMM layout after AutoAWQ's ``WQLinear_GEMM.from_linear``; columns are not rescaled here."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    stored, expected = {}, {}
    for name, tensor in weights.items():
        codes, zeros, scales = _groups(tensor.numpy(), 4, group)
        index = np.arange(tensor.shape[1]) // group
        stem = name.removesuffix("weight")

        def words(values: np.ndarray) -> torch.Tensor:
            grouped = values.reshape(values.shape[0], -1, 8)[:, :, order].astype(np.int64)
            packed = sum(grouped[:, :, place] << (4 * place) for place in range(8))
            return torch.from_numpy(packed.astype(np.uint32).view(np.int32))

        stored |= {
            stem + "qweight": words(codes.T),
            stem + "qzeros": words(zeros.T),
            stem + "scales": torch.from_numpy(scales.T.astype(np.float16)),
        }
        expected[name] = ((codes - zeros[:, index]) * scales[:, index]).astype(np.float32)
    return stored, expected


def state_with(stored: Stored, name: str, **changes: object) -> Stored:
    """A copy whose bitsandbytes state of that weight says something else."""
    key = next(key for key in stored if key.startswith(f"{name}.quant_state"))
    state = json.loads(bytes(stored[key].numpy().tobytes())) | changes
    return stored | {key: torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)}
