"""Writes the known answers of the narrow floats: f8e4m3, f8e5m2, f16 and bf16.

Needs `numpy` and `ml_dtypes`; run anywhere: `python fp8.py`. For each dtype, beside this file:

- `<dtype>_f32.npy`, `<dtype>_of_f32.npy`: floats, and the patterns that they round to;
- `<dtype>_f64.npy`, `<dtype>_of_f64.npy`: doubles, and the patterns that they round to, in one rounding;
- `<dtype>_decoded.npy` (8 bits only): the bits of the float that each pattern stands for.

The patterns are found by an exact search over all values. Those of floats are ml_dtypes' (NumPy's for f16), which
is asserted; of doubles ml_dtypes rounds some twice (bf16, and the subnormals of the 8-bit types).
"""

from bisect import bisect_left
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np

HERE = Path(__file__).parent
TYPES = {
    "f8e4m3": (ml_dtypes.float8_e4m3fn, np.uint8),
    "f8e5m2": (ml_dtypes.float8_e5m2, np.uint8),
    "f16": (np.float16, np.uint16),
    "bf16": (ml_dtypes.bfloat16, np.uint16),
}
SPECIAL = [0.0, 2.0**-149, 2.0**-126, 1e-30, 1e30, 3e38, np.inf, np.nan]


def values_of(dtype, unsigned):
    """The finite values that are not negative, ascending; the pattern of one is its index."""
    half = 1 << (8 * np.dtype(unsigned).itemsize - 1)
    values = np.arange(half).astype(unsigned).view(dtype).astype(np.float64)
    finite = values[np.isfinite(values)]
    assert (np.diff(finite) > 0).all()
    return finite


def inputs(finite, wide):
    """Values, the middles between neighbours, the wide type's numbers beside those; the edge of overflow; both signs."""
    rng = np.random.default_rng(8)
    last = len(finite) - 2
    picked = range(last + 1)
    if last > 1000:
        picked = sorted({*range(40), *range(last - 40, last + 1), *rng.integers(0, last, 250).tolist()})
    out = []
    edge = finite[-1] + (finite[-1] - finite[-2])
    pairs = [(finite[i], finite[i + 1]) for i in picked] + [(finite[-1], edge)]
    with np.errstate(over="ignore"):
        for low, high in pairs:
            middle = wide((low + high) / 2)
            beside = [wide(low), middle, np.nextafter(middle, wide(0)), np.nextafter(middle, wide(np.inf))]
            beside += [np.nextafter(wide(low), wide(np.inf)), wide(low + (high - low) * 0.75)]
            out += beside
        out += [wide(edge), wide(edge * 1.5), *map(wide, SPECIAL)]
        if wide is np.float64:
            out += [5e-324, 1e-300, 1e300, np.finfo(np.float64).max]
    out = np.array(out, wide)
    return np.concatenate([out, -out])


def exact(name, finite, x):
    """The pattern that a number rounds to: to nearest, ties to even, by fractions."""
    half = {"f8e4m3": 0x80, "f8e5m2": 0x80, "f16": 0x8000, "bf16": 0x8000}[name]
    sign = half if np.signbit(x) else 0
    nan = {"f8e4m3": 0x7F, "f8e5m2": 0x7E, "f16": 0x7E00, "bf16": 0x7FC0}[name]
    if np.isnan(x):
        return sign | nan
    infinity = nan if name == "f8e4m3" else len(finite)
    if np.isinf(x):
        return sign | infinity
    x = abs(Fraction(float(x)))
    at = bisect_left(finite, float(x))
    edge = Fraction(finite[-1]) + (Fraction(finite[-1]) - Fraction(finite[-2]))
    value = lambda i: Fraction(finite[i]) if i < len(finite) else edge
    # `at` is the first value that is not below x.
    if at < len(finite) and value(at) == x:
        return sign | at
    if at == len(finite) and x >= edge:
        return sign | infinity
    low, high = at - 1, at
    middle = (value(low) + value(high)) / 2
    up = x > middle or (x == middle and low % 2 == 1)
    chosen = high if up else low
    return sign | (infinity if chosen == len(finite) else chosen)


def main():
    for name, (dtype, unsigned) in TYPES.items():
        finite = values_of(dtype, unsigned)
        for wide in (np.float32, np.float64):
            x = inputs(finite, wide)
            want = np.array([exact(name, finite, v) for v in x], unsigned)
            with np.errstate(all="ignore"):
                cast = x.astype(dtype).view(unsigned)
            if wide is np.float32 or name == "f16":
                different = np.flatnonzero(cast != want)
                assert not len(different), (name, wide, x[different][:5], cast[different][:5], want[different][:5])
            letters = {np.float32: "f32", np.float64: "f64"}[wide]
            np.save(HERE / f"{name}_{letters}.npy", x)
            np.save(HERE / f"{name}_of_{letters}.npy", want)
        if unsigned is np.uint8:
            decoded = np.arange(256).astype(np.uint8).view(dtype).astype(np.float32)
            np.save(HERE / f"{name}_decoded.npy", decoded.view(np.uint32))


main()
