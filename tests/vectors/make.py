"""Writes *.json beside it: expressions over tensors, and what NumPy gives for them.

Run in this folder with NumPy 2: python make.py. Each file names the versions that wrote it.

Floats are 0x and the 16 hexadecimal digits of their bits, everything else is written in decimal. Floats are computed in f64,
integers as exact Python ones, as expressions do. A case with `close` may differ by rounding and in the sign of
zeros: NumPy adds in another order, and its transcendental functions are those of the platform.
"""

import json
import platform
import struct
from math import erf as scalar_erf

import numpy as np

F = np.float64
inf, nan = np.inf, np.nan
erf = np.vectorize(scalar_erf)
n = lambda v: np.asarray(v, dtype=np.int64)
o = lambda v: np.asarray(v, dtype=object)


def text(value):
    if isinstance(value, (float, np.floating)):
        return "0x" + struct.pack(">d", float(value)).hex()
    return str(int(value))


def lines(values):
    return " ".join(text(v) for v in np.asarray(values).ravel())


def write(name, tensors, exact, close):
    cases = [{"text": t, "shape": np.shape(v), "values": lines(v)} for t, v in exact]
    cases += [{"text": t, "shape": np.shape(v), "close": True, "values": lines(v)} for t, v in close]
    data = {
        "written_by": [f"NumPy {np.__version__}, Python {platform.python_version()}"],
        "tensors": [{"name": k, "dtype": d, "shape": np.shape(v), "values": lines(v)} for k, (d, v) in tensors.items()],
        "cases": cases,
    }
    with open(f"{name}.json", "w") as out:
        parts = (f' "{key}": [\n  ' + ",\n  ".join(json.dumps(row) for row in rows) + "\n ]" for key, rows in data.items())
        out.write("{\n" + ",\n".join(parts) + "\n}\n")


# Elements: one operation at a time, ordinary numbers.
TENSORS = {
    "x": ("f64", np.array([[0.5, -1.25, 3.0, -0.0], [7.5, 2.0, -2.5, 1e-3], [100.0, -3.5, 0.1, 9.0]])),
    "y": ("f32", np.array([2.0, -2.0, 0.5, 3.0], dtype=np.float32)),
    "h": ("f16", np.array([1.5, -0.25, 60000.0, 6e-8], dtype=np.float16)),
    "i": ("i32", np.array([7, -7, 3, -2147483648], dtype=np.int32)),
    "u": ("u8", np.array([[1, 255, 3, 4], [5, 6, 7, 0], [9, 10, 200, 12]], dtype=np.uint8)),
    "b": ("bool", np.array([True, False, True, True])),
    "c": ("f64", np.arange(24, dtype=F).reshape(2, 3, 4) / 7 - 1),
}
x, y, h, i, u, b, c = [v if d == "bool" else v.astype(object if d in ("i32", "u8") else F) for d, v in TENSORS.values()]
write("elements", TENSORS, [], [
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
    ("norm(y)", np.linalg.norm(y)),
    ("cdiv(i, 4)", -(-n(i) // 4)),
    ("log(exp(y)) + bf16(y) + f64(i)", y + y + n(i)),
])

# Elements that no ordinary number is, and integers beyond what f64 holds.
S = np.array([0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 5e-324, -1.7976931348623157e308, 0.5, 2.5, -2.5, 1e16])
T = np.array([-0.0, 3.0, inf, nan, inf, 2.0, 1.0, -5e-324, 2.0, -0.5, -inf, 0.0, 1.0])
B = [2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1, 0, -1, 7]
U = [2**64 - 1, 2**63, 2**53 + 1, 1, 0, 255, 4096]
K = [1, 3, 5, 7, 0, 62, 4]
M = [1, 0, 1, 1, 0, 0, 1]
tensors = {"s": ("f64", S), "t": ("f64", T), "i": ("i64", o(B)), "u": ("u64", o(U)), "k": ("i32", o(K)), "m": ("bool", o(M))}
i, u, k, m = o(B), o(U), o(K), np.array(M, dtype=bool)
wrap = lambda v, bits, signed: o([((x + (2 ** (bits - 1) if signed else 0)) % 2**bits) - (2 ** (bits - 1) if signed else 0) for x in v])
with np.errstate(all="ignore"):
    write("edges", tensors, [
        ("s + t", S + T), ("s - t", S - T), ("s * t", S * T), ("s / t", S / T),
        ("s ** 2", S**2), ("s == t", S == T), ("s != t", S != T), ("s < t", S < T),
        ("s <= t", S <= T), ("s > t", S > T), ("s >= t", S >= T), ("-s", -S), ("abs(s)", np.abs(S)), ("sign(t)", np.sign(T)),
        ("floor(s)", np.floor(S)), ("ceil(s)", np.ceil(S)), ("rint(s)", np.rint(S)), ("sqrt(s)", np.sqrt(S)), ("s // t", np.floor_divide(S, T)),
        ("s % t", np.mod(S, T)), ("isfinite(s)", np.isfinite(S)), ("isnan(s)", np.isnan(S)), ("f16(s)", S.astype(np.float16).astype(F)),
        ("f32(s)", S.astype(np.float32).astype(F)), ("where(s > 0, s, t)", np.where(S > 0, S, T)), ("clamp(s, -1, 2)", np.clip(S, -1, 2)),
        ("bool(s)", S.astype(bool)), ("not s", ~S.astype(bool)), ("s and t", S.astype(bool) & T.astype(bool)), ("s or t", S.astype(bool) | T.astype(bool)),
        ("i + u", i + u), ("i - u", i - u), ("i * u", i * u), ("u // 3", u // 3), ("i // -3", i // -3), ("i % 10", i % 10), ("i % -10", i % -10),
        ("u << k", o([a << b for a, b in zip(U, K)])), ("i >> k", o([a >> b for a, b in zip(B, K)])), ("i & u", i & u), ("i | u", i | u), ("i ^ u", i ^ u),
        ("~i", o([~v for v in B])), ("~m", ~m), ("m & (not m)", m & ~m), ("m | ~m", m | ~m), ("m ^ m", m ^ m), ("m + m", n(m) + n(m)), ("u64(~u)", wrap([~v for v in U], 64, False)),
        ("i64(u)", wrap(U, 64, True)), ("u64(i)", wrap(B, 64, False)), ("i32(u)", wrap(U, 32, True)), ("u32(i)", wrap(B, 32, False)),
        ("i16(u)", wrap(U, 16, True)), ("u16(i)", wrap(B, 16, False)), ("i8(u)", wrap(U, 8, True)), ("u8(i)", wrap(B, 8, False)),
        ("f64(i)", n(B).astype(F)), ("f64(u)", np.array(U, dtype=np.uint64).astype(F)), ("f32(u)", np.array(U, dtype=np.uint64).astype(np.float32).astype(F)),
        ("i == i64(f64(i))", o(B) == o([int(float(v)) if abs(float(v)) < 2**63 else -(2**63) for v in B])),
        ("sum(i)", sum(B)), ("sum(u)", sum(U)), ("prod(k[0:4])", 105), ("max(i)", max(B)), ("min(i)", min(B)), ("sum(m)", 4), ("cumsum(u)", np.cumsum(u)),
        ("sort(i)", np.sort(i)), ("sort(u)", np.sort(u)), ("argmax(u)", int(np.argmax(u))), ("argmin(i)", int(np.argmin(i))),
        ("matmul(i, u)", sum(p * q for p, q in zip(B, U))), ("2 ** k", o([2**v for v in K])), ("pow(2.0, k)", 2.0 ** n(K).astype(F)),
        ("max(i, u)", np.maximum(i, u)), ("min(i, u, 3)", np.minimum(np.minimum(i, u), 3)), ("u[6] - u[0] + i[k[0]]", U[6] - U[0] + B[1]),
        ("repeat(i, 2)", np.repeat(i, 2)), ("i[k[1:3]]", i[n(K)[1:3]]), ("reshape(u, 7, 1) - i", u.reshape(7, 1) - i),
    ], [
        ("exp(s)", np.exp(S)), ("log(s)", np.log(S)), ("log2(s)", np.log2(S)), ("tanh(s)", np.tanh(S)), ("erf(s)", erf(S)),
        ("sin(s[0:4])", np.sin(S[0:4])), ("relu(s)", np.maximum(S, 0)), ("sum(s[0:4])", np.sum(S[0:4])), ("sum(s)", np.sum(S)), ("prod(s)", np.prod(S)),
        ("mean(i)", sum(B) / len(B)), ("rsqrt(s)", 1 / np.sqrt(S)), ("min(s, t)", np.minimum(S, T)), ("max(s, t)", np.maximum(S, T)), ("sigmoid(s)", 1 / (1 + np.exp(-S))),
    ])

# Along an axis. The rows have ties, NaN, infinities and zeros of both signs; the sizes are odd.
rng = np.random.default_rng(5)
A = rng.normal(size=(3, 5, 7))
A[0, 1] = [2, 9, 9, -1, 9, -1, 2]
A[1, 2] = [1, nan, 5, nan, -5, 0, 1]
A[2, 4] = [-inf, inf, 0.0, inf, -inf, 3, 1]
W = np.round(rng.normal(size=(4, 6)) * 8) / 8
N = rng.integers(-9, 9, size=(5, 3))
Z = np.zeros((0, 3))
P = np.full((2, 3), -inf)
V = np.round(rng.normal(size=1033) * 4) / 4
tensors = {"a": ("f64", A), "w": ("f32", W), "i": ("i16", N), "z": ("f64", Z), "p": ("f64", P), "v": ("f64", V)}
def softmax(v, axis):
    e = np.exp(v - v.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
with np.errstate(all="ignore"):
    exact = []
    for axis in (0, 1, 2, -1, -2, -3):
        exact += [(f"{f.__name__}(a, axis={axis})", f(A, axis=axis)) for f in (np.argmax, np.argmin, np.sort, np.max, np.min)]
    for axis in (0, 1, -1):
        exact += [(f"{f.__name__}(i, axis={axis})", f(N, axis=axis)) for f in (np.argmax, np.argmin, np.sort, np.cumsum, np.sum, np.prod, np.max)]
        exact += [(f"cumsum(w, axis={axis})", np.cumsum(W, axis=axis)), (f"any(i > 5, axis={axis})", np.any(N > 5, axis=axis)), (f"all(i, axis={axis})", np.all(N, axis=axis))]
    exact += [
        ("argmax(a)", int(np.argmax(A))), ("argmin(a)", int(np.argmin(A))), ("argmax(w)", int(np.argmax(W))), ("argmin(-w)", int(np.argmin(-W))),
        ("argmax(i)", int(np.argmax(N))), ("argmax(v)", int(np.argmax(V))), ("argmin(v)", int(np.argmin(V))), ("argmax(p, axis=0)", np.argmax(P, axis=0)),
        ("argmax(i > 3)", int(np.argmax(N > 3))), ("argmax(0 * v)", 0), ("max(a)", np.max(A)), ("sort(w)", np.sort(W)), ("sort(i)", np.sort(N)),
        ("sort(z)", Z), ("sort(z, axis=0)", Z), ("cumsum(z, axis=0)", Z), ("cumsum(z)", np.zeros(0)), ("sum(z, axis=0)", np.zeros(3)), ("cumsum(w)", np.cumsum(W)), ("cumsum(i)", np.cumsum(N)),
        ("cumsum(i > 0, axis=0)", np.cumsum(N > 0, axis=0)), ("sort(a[1, 2])[3:]", np.sort(A[1, 2])[3:]), ("cumsum(v) - v", np.cumsum(V) - V),
        ("sum(sort(w, axis=0) * w)", np.sum(np.sort(W, axis=0) * W)), ("transpose(sort(w, axis=0))", np.sort(W, axis=0).T), ("reshape(sort(i, axis=0), 3, 5)", np.sort(N, axis=0).reshape(3, 5)),
        ("softmax(z, axis=1)", Z), ("norm(w[1:1])", 0.0), ("argmax(z, axis=1)", np.zeros(0, dtype=int)),
    ]
    close = [(f"softmax(a[0], axis={axis})", softmax(A[0], axis)) for axis in (0, 1, -1)]
    close += [(f"norm(w, axis={axis})", np.linalg.norm(W, axis=axis)) for axis in (0, 1, -1)]
    close += [
        ("softmax(a, axis=2)", softmax(A, 2)), ("softmax(a, axis=1)", softmax(A, 1)), ("softmax(p, axis=1)", softmax(P, 1)), ("softmax(v)", softmax(V, 0)), ("sort(v)", np.sort(V)), ("softmax(i, axis=0)", softmax(N.astype(F), 0)),
        ("norm(w)", np.linalg.norm(W)), ("norm(i)", np.linalg.norm(N.astype(F))), ("norm(v)", np.linalg.norm(V)), ("cumsum(a, axis=0)", np.cumsum(A, axis=0)), ("cumsum(a, axis=-1)", np.cumsum(A, axis=-1)),
        ("matmul(sort(w, axis=0), transpose(w))", np.sort(W, axis=0) @ W.T),
    ]
    write("axes", tensors, exact, close)

# Elements at other places.
X = np.arange(60, dtype=F).reshape(3, 4, 5) - 7.5
I = np.array([2, 0, 2, 1, 1])
J = np.array([[0, 3], [3, 1]])
Q = np.array([[4, 0, 1, 3], [2, 2, 4, 0], [1, 3, 3, 3]])
L = np.array([9, 3, 17])
tensors = {"x": ("f32", X), "i": ("i32", I), "j": ("u8", J), "q": ("i64", Q), "l": ("u16", L), "s": ("i32", np.int64(1)), "e": ("i32", np.zeros(0, dtype=int)), "b": ("bool", np.array([1, 0, 1]))}
write("places", tensors, [
    ("x[i]", X[I]), ("x[i, 1]", X[I, 1]), ("x[1, j]", X[1, J]), ("x[:, j]", X[:, J]), ("x[:, :, i]", X[:, :, I]), ("x[i, i]", X[I, I]),
    ("x[i, :, i]", X[I, :, I]), ("x[1, :, i]", X[1, :, I]), ("x[:, i, i]", X[:, I, I]), ("x[i, 1:3]", X[I, 1:3]), ("x[1:3, j, 2:4]", X[1:3][:, J, 2:4]),
    ("x[reshape(i, 5, 1), 1, q[0]]", X[I.reshape(5, 1), 1, Q[0]]), ("x[s]", X[1]), ("x[s, :, s]", X[1, :, 1]), ("x[s, s + 2]", X[1, 3]), ("x[i[s]]", X[0]), ("x[e]", X[np.zeros(0, dtype=int)]),
    ("x[e, 2]", X[np.zeros(0, dtype=int), 2]), ("l[i]", L[I]), ("(l * 2)[i] + 1", (L * 2)[I] + 1), ("transpose(x)[q[1]]", X.T[Q[1]]), ("x[2 - i, 3]", X[2 - I, 3]), ("x[i][1:4, 0]", X[I][1:4, 0]),
    ("x[i][:, j]", X[I][:, J]), ("sum(x[i], axis=0)", X[I].sum(axis=0)), ("cumsum(l)[i]", np.cumsum(L)[I]), ("sum(x, axis=0)[j[0]]", X.sum(axis=0)[J[0]]), ("b[i]", np.array([True, False, True])[I]),
    ("x[1:3, 2]", X[1:3, 2]), ("x[1:1]", X[1:1]), ("x[:, 1:3, 4:]", X[:, 1:3, 4:]), ("x[2][3][4]", X[2][3][4]), ("x[:2, 1:] * x[1:, :3]", X[:2, 1:] * X[1:, :3]),
    ("reshape(x, 12, 5)", X.reshape(12, 5)), ("reshape(x, -1)", X.ravel()), ("reshape(x, 5, -1, 2)", X.reshape(5, -1, 2)), ("reshape(transpose(x), 6, 10)", X.T.reshape(6, 10)), ("reshape(x[1:], 40)", X[1:].ravel()),
    ("reshape(x[:, 1], 5, 3)", X[:, 1].reshape(5, 3)), ("reshape(x * 2, 3, 20)", (X * 2).reshape(3, 20)), ("reshape(reshape(x, 60), 4, 15)", X.reshape(4, 15)), ("reshape(s, 1, 1)", np.array([[1]])), ("reshape(e, 0, 3)", np.zeros((0, 3), dtype=int)),
    ("reshape(sum(x), 1)", X.sum().reshape(1)), ("transpose(x, 1, 0, 2)", X.transpose(1, 0, 2)), ("transpose(x, -1, 0, 1)", X.transpose(-1, 0, 1)), ("transpose(x)", X.T), ("transpose(l)", L),
    ("repeat(l, 3)", np.repeat(L, 3)), ("repeat(x, 2, axis=0)", np.repeat(X, 2, axis=0)), ("repeat(x, 3, axis=1)", np.repeat(X, 3, axis=1)), ("repeat(x, 2, axis=-1)", np.repeat(X, 2, axis=-1)), ("repeat(x, 0, axis=1)", np.repeat(X, 0, axis=1)),
    ("repeat(x, 2)", np.repeat(X, 2)), ("repeat(s, 4)", np.repeat(1, 4)), ("repeat(l + 1, 2) * repeat(l, 2)", np.repeat(L + 1, 2) * np.repeat(L, 2)), ("repeat(l, 2)[i]", np.repeat(L, 2)[I]), ("index(0) * 10 + l", np.arange(3) * 10 + L),
    ("x[index(0) % 3, index(1), 2]", X[np.arange(5)[:, None] % 3, np.arange(4), 2]),
    ("where(index(1) * 2 < l[index(0)], 5, -1)", np.where(np.arange(6)[None] * 2 < L[:, None], 5, -1)),
], [("matmul(reshape(x, 12, 5), x[0][i[0]])", X.reshape(12, 5) @ X[0][2])])

# What others say where elements go.
D = np.array([3, 1, 1, 0, 7, 3, 3])
D2 = np.array([[0, 5, 5], [2, 2, 2]])
PTR = np.array([0, 2, 2, 5, 7])
PART = np.array([1, 3, 3, 4])
VAL = np.array([0.5, -1.5, nan, 2.0, 4.0, 1e300, 1.0])
COL = np.array([0, 3, 1, 2, 2, 0, 3])
XX = np.array([1.5, -2.0, 0.25, 8.0])
R = np.arange(21.0).reshape(7, 3) - 4
tensors = {"d": ("u8", D), "e": ("i32", D2), "ptr": ("i32", PTR), "part": ("u32", PART), "val": ("f64", VAL), "col": ("i32", COL), "x": ("f32", XX), "r": ("f32", R), "none": ("i32", np.zeros(0, dtype=int))}
seg = lambda v, p: np.array([v[a:b].sum(axis=0) for a, b in zip(p, p[1:])])
write("groups", tensors, [
    ("bincount(d, 8)", np.bincount(D, minlength=8)), ("bincount(d, 11)", np.bincount(D, minlength=11)), ("bincount(e, 6)", np.bincount(D2.ravel(), minlength=6)), ("bincount(none, 3)", np.zeros(3, dtype=int)), ("bincount(none, 0)", np.zeros(0, dtype=int)),
    ("bincount(d > 2, 2)", np.bincount(D > 2, minlength=2)), ("bincount(d % 3, 3) * 2", np.bincount(D % 3, minlength=3) * 2),
    ("segment_sum(val, ptr)", seg(VAL, PTR)), ("segment_sum(val, part)", seg(VAL, PART)), ("segment_sum(d, ptr)", seg(D, PTR)), ("segment_sum(r, ptr)", seg(R, PTR)), ("segment_sum(d > 1, ptr)", seg(n(D > 1), PTR)),
    ("segment_sum(val * x[col], ptr)", seg(VAL * XX[COL], PTR)), ("segment_sum(r, ptr)[:, 1]", seg(R, PTR)[:, 1]), ("sum(segment_sum(r, ptr), axis=0)", seg(R, PTR).sum(axis=0)), ("reshape(segment_sum(r, ptr), 12)", seg(R, PTR).ravel()),
    ("compress(val, val > 0)", VAL[VAL > 0]), ("compress(d, d == 3)", D[D == 3]), ("compress(r, d > 2)", R[D > 2]), ("compress(e, e > 1)", D2[D2 > 1]), ("compress(d, d > 100)", D[D > 100]), ("compress(r, r > 8)", R[R > 8]),
    ("compress(d, d < 100)", D), ("compress(val * 2, d == 1) + 1", (VAL * 2)[D == 1] + 1), ("sort(compress(d, d > 0))", np.sort(D[D > 0])),
], [])
