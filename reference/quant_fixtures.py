"""Writes crates/kernels/tests/fixtures/quant.bin: blocks of every storage format and the floats
that other implementations read from them or write into them.

Sources: the `gguf` package (ggml's own Python reference) for the GGUF formats, PyTorch for FP8, and
`transformers.integrations.mxfp4` for the layout of gpt-oss's checkpoints.

Layout of the file (little endian), records one after the other:
    u8 kind       b'd': bytes to floats, b'q': floats to bytes, b's': MXFP4 with scales beside,
                  b'f': FP8 with one scale for 128 columns
    u8 n, n bytes name of the format
    u32, u32      number of bytes, number of floats
    the bytes     (kind s: blocks, then scales; kind f: the elements)
    the floats    (kind f: the scales, then the results)

Needs: pip install gguf torch transformers numpy (written with gguf 0.19.0, torch 2.15.0, numpy 2.4.6)
"""

import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = Path(__file__).resolve().parent.parent / "crates/kernels/tests/fixtures/quant.bin"
rng = np.random.default_rng(20240501)

# Offsets of the half-precision scales in a block.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}
# Ordinary, negative, zero, negative zero, least and largest subnormal, largest, infinity, NaN.
SPECIAL_HALVES = [0x2E66, 0xA8F1, 0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFC00, 0x7E01]
SPECIAL_E8M0 = [127, 120, 0, 1, 2, 3, 253, 254, 255]


def record(kind, name, data, floats):
    data = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    floats = np.ascontiguousarray(floats, dtype="<f4").reshape(-1)
    name = name.lower().encode()
    head = kind + struct.pack("<B", len(name)) + name + struct.pack("<II", data.size, floats.size)
    return head + data.tobytes() + floats.tobytes()


def reads():
    for name, offsets in HALVES.items():
        qtype = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[qtype]
        blocks = rng.integers(0, 256, (len(SPECIAL_HALVES), size), dtype=np.uint8)
        for at, offset in enumerate(offsets):
            halves = np.roll(np.array(SPECIAL_HALVES, dtype="<u2"), 4 * at)
            blocks[:, offset : offset + 2] = halves.view(np.uint8).reshape(-1, 2)
        if name == "MXFP4":
            blocks[:, 0] = SPECIAL_E8M0
        with np.errstate(all="ignore"):
            yield record(b"d", name, blocks, np.concatenate([dequantize(b[None], qtype).reshape(-1) for b in blocks]))
    halves = np.array(SPECIAL_HALVES + [0x3C00, 0xC500, 0x0400, 0x7C00] + list(rng.integers(0, 0x7C00, 50)), dtype="<u2")
    yield record(b"d", "F16", halves, dequantize(halves.view(np.uint8), gguf.GGMLQuantizationType.F16))
    words = np.concatenate([rng.integers(0, 0x10000, 50), [0, 0x8000, 1, 0x7F80, 0xFF80, 0x7FC0, 0x7F7F]]).astype("<u2")
    yield record(b"d", "BF16", words, dequantize(words.view(np.uint8).reshape(1, -1), gguf.GGMLQuantizationType.BF16))
    every = np.arange(256, dtype=np.uint8)
    yield record(b"d", "F8_E4M3", every, torch.from_numpy(every).view(torch.float8_e4m3fn).float().numpy())


def rows():
    n = rng.standard_normal((4, 32)).astype(np.float32)
    ramp = np.arange(-16, 16, dtype=np.float32)
    one = np.zeros(32, dtype=np.float32)
    one[13] = -0.75
    return np.stack([
        n[0], n[1] * np.float32(1e-3), n[2] * np.float32(1e3), -np.abs(n[3]), np.abs(n[3]) + 5,
        np.zeros(32, dtype=np.float32), one, np.full(32, 1.5, dtype=np.float32), ramp, ramp / 2 + np.float32(0.25),
        n[1] * np.float32(1e-7),
    ])


def writes():
    x = rows()
    for name in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "BF16", "F16"]:
        qtype = gguf.GGMLQuantizationType[name]
        yield record(b"q", name, np.concatenate([quantize(row[None], qtype).reshape(-1) for row in x]), x)
    x = np.clip(x, -448, 448)
    yield record(b"q", "F8_E4M3", torch.from_numpy(x).to(torch.float8_e4m3fn).view(torch.uint8).numpy(), x)


def beside():
    blocks = rng.integers(0, 256, (1, 1, 9, 16), dtype=np.uint8)
    blocks[0, 0, 0] = [2 * j % 16 | (2 * j + 1) % 16 << 4 for j in range(16)]
    scales = np.array([127, 120, 0, 1, 2, 140, 200, 253, 254], dtype=np.uint8)
    floats = convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales).reshape(1, 1, 9))
    yield record(b"s", "MXFP4", np.concatenate([blocks.reshape(-1), scales]), floats.float().numpy())

    elements = rng.integers(0, 256, 300, dtype=np.uint8)
    scales = np.array([0.0123, 1.5e-4, 3.0], dtype=np.float32)
    floats = torch.from_numpy(elements).view(torch.float8_e4m3fn).float() * torch.from_numpy(scales.repeat(128)[:300])
    yield record(b"f", "F8_E4M3", elements, np.concatenate([scales, floats.numpy()]))


if __name__ == "__main__":
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(b"".join([*reads(), *writes(), *beside()]))
    print(f"{OUT.name}: {OUT.stat().st_size} bytes", file=sys.stderr)
