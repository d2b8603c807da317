"""Writes numpy.json: expressions over the tensors below, and what NumPy gives for them.

Run with NumPy 2 in this folder: python make.py
"""

import json
from math import erf as scalar_erf

import numpy as np

F = np.float64
TENSORS = {
    "x": ("f64", np.array([[0.5, -1.25, 3.0, -0.0], [7.5, 2.0, -2.5, 1e-3], [100.0, -3.5, 0.1, 9.0]])),
    "y": ("f32", np.array([2.0, -2.0, 0.5, 3.0], dtype=np.float32)),
    "h": ("f16", np.array([1.5, -0.25, 60000.0, 6e-8], dtype=np.float16)),
    "i": ("i32", np.array([7, -7, 3, -2147483648], dtype=np.int32)),
    "u": ("u8", np.array([[1, 255, 3, 4], [5, 6, 7, 0], [9, 10, 200, 12]], dtype=np.uint8)),
    "b": ("bool", np.array([True, False, True, True])),
    "c": ("f64", np.arange(24, dtype=F).reshape(2, 3, 4) / 7 - 1),
}
erf = np.vectorize(scalar_erf)
x, y, h, i, u, b, c = [v if d == "bool" else v.astype(object if d in ("i32", "u8") else F) for d, v in TENSORS.values()]
n = lambda v: np.asarray(v, dtype=np.int64)
# The expression, and the same in NumPy with floats in f64 and integers exact.
CASES = [
    ("x + y * 2", x + y * 2),
    ("x - transpose(x[0:3, 0:3])[:, 1:2]", x - x[0:3, 0:3].T[:, 1:2]),
    ("x / y", x / y),
    ("x // y", np.floor_divide(x, y)),
    ("x % y", np.mod(x, y)),
    ("x % -0.75", np.mod(x, -0.75)),
    ("i // 4", n(i) // 4),
    ("i % -4", n(i) % -4),
    ("i + u", n(i) + n(u)),
    ("u * u - i", n(u) * n(u) - n(i)),
    ("i >> 2", n(i) >> 2),
    ("u << 3 & 96 | u ^ 5", (n(u) << 3) & 96 | n(u) ^ 5),
    ("i8(u)", n(u).astype(np.uint8).astype(np.int8)),
    ("u16(i)", n(i).astype(np.uint16)),
    ("f16(x)", x.astype(np.float16).astype(F)),
    ("f32(x / 3)", (x / 3).astype(np.float32).astype(F)),
    ("h * h", h * h),
    ("x < y", x < y),
    ("x >= 2 and b or not (u > 4)", (x >= 2) & b | ~(n(u) > 4)),
    ("where(b, x, y)", np.where(b, x, y)),
    ("where(u > 6, u, -1)", np.where(n(u) > 6, n(u), -1)),
    ("min(x, y)", np.minimum(x, y)),
    ("max(x, 1, y)", np.maximum(np.maximum(x, 1), y)),
    ("clamp(x, -1, 2)", np.clip(x, -1, 2)),
    ("abs(x)", np.abs(x)),
    ("sign(x)", np.sign(x)),
    ("floor(x)", np.floor(x)),
    ("ceil(x)", np.ceil(x)),
    ("rint(x)", np.rint(x)),
    ("sqrt(abs(x))", np.sqrt(np.abs(x))),
    ("rsqrt(1 + x * x)", 1 / np.sqrt(1 + x * x)),
    ("exp(x)", np.exp(x)),
    ("log(abs(x) + 1)", np.log(np.abs(x) + 1)),
    ("log2(abs(x) + 1)", np.log2(np.abs(x) + 1)),
    ("sin(x)", np.sin(x)),
    ("cos(x)", np.cos(x)),
    ("tan(x)", np.tan(x)),
    ("tanh(x)", np.tanh(x)),
    ("erf(x)", erf(x)),
    ("pow(abs(x), y)", np.power(np.abs(x), y)),
    ("x ** 3", x**3),
    ("sigmoid(x)", 1 / (1 + np.exp(-x))),
    ("relu(x)", np.maximum(x, 0)),
    ("0.5 * x * (1 + erf(x / sqrt(2))) - gelu(x)", x * 0),
    ("sum(x)", np.sum(x)),
    ("sum(c, axis=1)", np.sum(c, axis=1)),
    ("sum(u, axis=0)", np.sum(n(u), axis=0)),
    ("mean(c, axis=-1)", np.mean(c, axis=-1)),
    ("max(c, axis=0)", np.max(c, axis=0)),
    ("min(i)", np.min(n(i))),
    ("prod(u[1:, 0:2], axis=1)", np.prod(n(u)[1:, 0:2], axis=1)),
    ("any(x > 50, axis=1)", np.any(x > 50, axis=1)),
    ("all(u, axis=0)", np.all(n(u), axis=0)),
    ("matmul(x, y)", x @ y),
    ("matmul(y, y)", y @ y),
    ("matmul(c, transpose(x))", c @ x.T),
    ("matmul(transpose(u), u)", n(u).T @ n(u)),
    ("matmul(c[0], transpose(c[1]))", c[0] @ c[1].T),
    ("transpose(c)", c.T),
    ("c[1, :, 2] + index(0)", c[1, :, 2] + np.arange(3)),
    ("exp(y - max(y)) / sum(exp(y - max(y)))", np.exp(y - y.max()) / np.exp(y - y.max()).sum()),
]


def plain(values):
    return [float(v) if isinstance(v, (float, np.floating)) else int(v) for v in np.asarray(values).ravel()]


data = {
    "tensors": {k: {"dtype": d, "shape": v.shape, "values": plain(v)} for k, (d, v) in TENSORS.items()},
    "cases": [{"text": t, "shape": np.shape(v), "values": plain(v)} for t, v in CASES],
}
with open("numpy.json", "w") as out:
    out.write("{\n")
    for last, (key, value) in enumerate(data.items()):
        rows = value.items() if isinstance(value, dict) else [(None, row) for row in value]
        lines = [("" if k is None else json.dumps(k) + ": ") + json.dumps(v) for k, v in rows]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        out.write(f' "{key}": {opening}\n  ' + ",\n  ".join(lines) + f"\n {closing}" + (",\n" if last == 0 else "\n"))
    out.write("}\n")
