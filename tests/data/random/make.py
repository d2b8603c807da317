"""Writes the known answers of random contents: cases.json and one .npy per case.

Implements the documented algorithm with NumPy, independently of the Rust code:
Philox4x32-10, the key from blake3, uniform, normal (AS 241 with fdlibm's logarithm), integers, range, permutation.
Run in this folder with `numpy`, `ml_dtypes` and `blake3` installed: `python make.py`.
"""

import json

import blake3
import ml_dtypes
import numpy as np

U32, U64, F32, F64 = np.uint32, np.uint64, np.float32, np.float64
EVERY_ROUND = 2**32 - 1


def key_of(seed, name):
    digest = blake3.blake3(seed.to_bytes(8, "little") + name.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def philox(counter, key):
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


assert philox((0,) * 4, (0,) * 2) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


def word(key, time, draw, i):
    block = i // 4
    return philox((block & 0xFFFFFFFF, block >> 32, time, draw), key)[i % 4]


def words(key, time, first, count):
    w0 = [word(key, time, 0, first + i) for i in range(count)]
    w1 = [word(key, time, 1, first + i) for i in range(count)]
    return np.array(w0, U64), np.array([(a << 32) | b for a, b in zip(w0, w1)], U64)


def bf16_bits(x):
    """f32 to bfloat16, to nearest, ties to even; finite values only."""
    bits = x.astype(F32).view(U32).astype(U64)
    return ((bits + 0x7FFF + ((bits >> U64(16)) & U64(1))) >> U64(16)).astype(np.uint16)


def bf16_value(bits):
    return (bits.astype(U32) << U32(16)).view(F32)


FP8 = {"f8e4m3": ml_dtypes.float8_e4m3fn, "f8e5m2": ml_dtypes.float8_e5m2}


def below(dtype, high):
    """The largest value of the dtype below `high`, as f64."""
    if dtype in FP8:
        values = np.arange(256).astype(np.uint8).view(FP8[dtype]).astype(F64)
        return values[np.isfinite(values) & (values < high)].max()
    if dtype == "bf16":
        bits = bf16_bits(np.array([high], F32))
        value = F64(bf16_value(bits)[0])
        if value < high:
            return value
        # A positive value has its predecessor one pattern below, a negative one above; below 0 is -2^-133.
        step = {True: -1, False: 1}[value > 0]
        if value == 0:
            return F64(-(2.0**-133))
        return F64(bf16_value((bits.astype(np.int32) + step).astype(np.uint16))[0])
    t = {"f64": F64, "f32": F32, "f16": np.float16}[dtype]
    value = t(high)
    return F64(value) if F64(value) < high else F64(np.nextafter(value, t(-np.inf)))


def uniform(dtype, low, high, w0, d):
    if dtype == "f64":
        step = (F64(high) - F64(low)) * F64(2.0**-53)
        return np.minimum(F64(low) + step * (d >> U64(11)).astype(F64), max(below("f64", high), F64(low)))
    step = F32(F64(high) - F64(low)) * F32(2.0**-24)
    k = (w0 >> U64(8)).astype(F32)
    draw = np.minimum(F32(low) + step * k, max(F32(below("f32", high)), F32(low)))
    assert draw.dtype == F32
    if dtype == "f32":
        return draw
    if dtype in FP8:
        rounded = draw.astype(FP8[dtype]).astype(F32)
        least = F32(F32(low).astype(FP8[dtype]))
        return np.minimum(rounded, max(F32(below(dtype, high)), least)).astype(FP8[dtype]).view(np.uint8)
    if dtype == "f16":
        return np.minimum(draw.astype(np.float16), max(np.float16(below("f16", high)), np.float16(F32(low))))
    least = F64(bf16_value(bf16_bits(np.array([low], F32)))[0])
    limit = max(below("bf16", high), least)
    return bf16_bits(np.minimum(bf16_value(bf16_bits(draw)), F32(limit)))


def log(x):
    """fdlibm's logarithm of positive normal doubles, in these very operations."""
    bits = x.view(U64) + U64(0x3FF0000000000000 - 0x3FE6A09E00000000)
    k = (bits >> U64(52)).astype(F64) - 1023.0
    f = ((bits & U64(0xFFFFFFFFFFFFF)) + U64(0x3FE6A09E00000000)).view(F64) - 1.0
    half_square = 0.5 * f * f
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    t2 = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    r = t2 + t1
    return s * (half_square + r) + k * 1.90821492927058770002e-10 - half_square + f + k * 6.93147180369123816490e-01


def poly(coefficients, x):
    """Coefficients lowest first."""
    total = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


A = [3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3]
B = [1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3]
C = [1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4]
D = [1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9]
E = [6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7]
F = [1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15]


def quantile(p):
    q = p - 0.5
    r = 0.180625 - q * q
    middle = q * poly(A, r) / poly(B, r)
    root = np.sqrt(-log(np.where(q < 0, p, 1.0 - p)))
    near, far = root - 1.6, root - 5.0
    sign = np.where(q < 0, -1.0, 1.0)
    tail = np.where(root <= 5.0, sign * poly(C, near) / poly(D, near), sign * poly(E, far) / poly(F, far))
    return np.where(np.abs(q) <= 0.425, middle, tail)


def normal(dtype, mean, std, w0, d):
    if dtype == "f64":
        return F64(mean) + F64(std) * quantile(((d >> U64(12)).astype(F64) + 0.5) * 2.0**-52)
    draw = (F64(mean) + F64(std) * quantile((w0.astype(F64) + 0.5) * 2.0**-32)).astype(F32)
    if dtype in FP8:
        return draw.astype(FP8[dtype]).view(np.uint8)
    return {"f32": lambda: draw, "f16": lambda: draw.astype(np.float16), "bf16": lambda: bf16_bits(draw)}[dtype]()


NUMPY = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "|i1",
         "u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "|u1", "bool": "|b1"}


def integers(dtype, low, high, w0, d):
    n = high - low + 1
    values = [low + ((int(x) * n) >> 64) for x in d]
    if dtype == "bf16":
        return bf16_bits(np.array(values, F32))
    if dtype in FP8:
        return np.array(values, F32).astype(FP8[dtype]).view(np.uint8)
    return np.array(values, NUMPY[dtype])


def ranged(dtype, start, step, first, count):
    """Element i is start + i * step: in whole numbers, or one product and one sum of doubles, rounded once."""
    if dtype[0] in "iu":
        return np.array([start + step * i for i in range(first, first + count)], NUMPY[dtype])
    values = F64(start) + F64(step) * np.arange(first, first + count).astype(F64)
    if dtype in FP8:
        assert (values == values.astype(F32)).all()
        return values.astype(F32).astype(FP8[dtype]).view(np.uint8)
    return values.astype(NUMPY[dtype])


def order(seed, epoch, n):
    key = key_of(seed, "sets")
    out = list(range(n))
    for i in range(n - 1, 0, -1):
        d = (word(key, epoch, 0, i) << 32) | word(key, epoch, 1, i)
        j = (d * (i + 1)) >> 64
        out[i], out[j] = out[j], out[i]
    return out


def main():
    cases = []
    for source, dtype, args, first, time in [
        ("uniform", "f32", (0.0, 1.0), 0, 0),
        ("uniform", "f32", (-1.0, 3.7), 3, EVERY_ROUND),
        ("uniform", "f32", (-0.1, 0.1), 2**34 - 10, 12),
        ("uniform", "f64", (-1.0, 3.7), 0, 1),
        ("uniform", "f16", (-1.0, 1.0), 0, 1),
        ("uniform", "bf16", (-1.0, 1.0), 0, 1),
        ("normal", "f32", (0.0, 1.0), 0, 0),
        ("normal", "f64", (2.5, 0.1), 0, 5),
        ("normal", "f16", (0.0, 1.0), 1, 0),
        ("normal", "bf16", (0.0, 1.0), 1, 0),
        ("integers", "i32", (-2**31, 2**31 - 1), 0, 0),
        ("integers", "i32", (-5, 1000), 0, 0),
        ("integers", "i64", (-2**63, 2**63 - 1), 0, 0),
        ("integers", "i64", (-2**62, 2**40), 0, 0),
        ("integers", "u64", (0, 2**64 - 1), 0, 0),
        ("integers", "u64", (7, 2**32 + 6), 0, 0),
        ("integers", "u64", (7, 2**32 + 7), 0, 0),
        ("integers", "u32", (0, 9), 2, EVERY_ROUND),
        ("integers", "i16", (-300, 300), 0, 0),
        ("integers", "u16", (0, 65535), 0, 0),
        ("integers", "i8", (-128, 127), 0, 0),
        ("integers", "u8", (0, 15), 0, 0),
        ("integers", "bool", (0, 1), 0, 0),
        ("integers", "f32", (-8, 8), 0, 0),
        ("integers", "bf16", (-8, 8), 0, 0),
        ("uniform", "f8e4m3", (-1.0, 1.0), 0, 1),
        ("uniform", "f8e4m3", (0.1, 448.0), 5, 2),
        ("uniform", "f8e5m2", (-3.0, 0.0), 0, 1),
        ("normal", "f8e4m3", (0.0, 1.0), 1, 0),
        ("normal", "f8e5m2", (0.0, 100.0), 1, 0),
        ("integers", "f8e4m3", (-16, 16), 0, 0),
        ("integers", "f8e5m2", (-8, 8), 0, EVERY_ROUND),
        ("integers", "f16", (-2048, 2048), 0, 0),
        ("integers", "f64", (-2**53, 2**53), 0, 0),
        ("range", "u64", (2**64 - 1, -3), 7, 0),
        ("range", "i8", (-128, 1), 0, 0),
        ("range", "f16", (1.0, 0.1), 0, 0),
        ("range", "f32", (-3.0, 0.1), 2**20, 0),
        ("range", "f8e5m2", (-16.0, 0.25), 0, 0),
    ]:
        seed, name, count = len(cases), "x" if len(cases) % 2 else "größe", 400
        if (source, dtype) == ("range", "i8"):
            count = 256
        if source == "range":
            values = ranged(dtype, *args, first, count)
        else:
            w0, d = words(key_of(seed, name), time, first, count)
            values = {"uniform": uniform, "normal": normal, "integers": integers}[source](dtype, *args, w0, d)
        file = f"{source}_{dtype}_{len(cases)}.npy"
        np.save(file, values)
        args = [str(a) for a in args] if all(isinstance(a, int) for a in args) else list(args)
        cases.append(dict(source=source, dtype=dtype, args=args, first=first, time=time, seed=seed, name=name, file=file))
    permutations = [dict(seed=s, epoch=e, order=order(s, e, n)) for s, e, n in [(0, 0, 10), (3, 7, 33)]]
    with open("cases.json", "w") as out:
        json.dump(dict(cases=cases, permutations=permutations), out, indent=1)
        out.write("\n")


main()
