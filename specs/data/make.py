#!/usr/bin/env python3
"""Writes the .npy files of the specs in the folder above. Needs NumPy; the files are committed.

    python specs/data/make.py
"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
N = 1000  # dim n of vector_add.toml
H, W = 240, 321  # dims h and w of stencil.toml


def save(name, array):
    np.save(HERE / f"{name}.npy", np.ascontiguousarray(array))


def vector_add(name, a, b):
    a, b = a.astype(np.float32), b.astype(np.float32)
    with np.errstate(over="ignore"):
        c = a + b
    assert a.shape == b.shape == c.shape == (N,) and c.dtype == np.float32
    assert not np.isnan(c).any()
    save(f"{name}_a", a)
    save(f"{name}_b", b)
    save(f"{name}_c", c)


def tile(values):
    """The values over and over, N in all."""
    return np.resize(np.array(values, np.float32), N)


def f32_from_bits(bits):
    return bits.astype(np.uint32).view(np.float32)


def photograph(rng, night):
    """A grey picture: sky, sun or moon, hills, a house with windows, vignette, film grain."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)
    v, u = y / H, x / W
    picture = np.where(v < 0.6, 0.85 - 0.5 * v, 0.0) * (0.25 if night else 1.0)
    disc = np.hypot(x - 0.72 * W, y - 0.2 * H)
    picture += (1.0 - picture) * np.clip(19.0 - disc, 0, 1)  # soft rim, one pixel wide
    picture += 0.25 * np.exp(-((disc / 40.0) ** 2))
    for k, shade in ((0, 0.45), (1, 0.33), (2, 0.22)):  # three ranges of hills, the nearest darkest
        ridge = 0.45 + 0.12 * k + 0.05 * np.sin(9.0 * u + 2.1 * k) + 0.02 * np.sin(31.0 * u + k)
        ground = shade * (0.4 if night else 1.0) * (1.0 + 0.08 * np.sin(60.0 * u + 40.0 * v))
        picture = np.where(v > ridge, ground, picture)
    house = (x > 60) & (x < 130) & (y > 150) & (y < 205)
    roof = (y > 122) & (y <= 150) & (np.abs(x - 95) < (y - 120) * 1.5)
    picture = np.where(house, 0.55 if not night else 0.18, picture)
    picture = np.where(roof, 0.3 if not night else 0.1, picture)
    for wx in (70, 90, 110):
        window = (x >= wx) & (x < wx + 12) & (y >= 163) & (y < 179)
        picture = np.where(window, 0.98 if night else 0.12, picture)
    picture *= 1.0 - 0.35 * ((u - 0.5) ** 2 + (v - 0.5) ** 2)
    picture += rng.normal(0.0, 0.035 if night else 0.02, picture.shape)
    return np.clip(np.rint(255.0 * picture), 0, 255).astype(np.uint8)


def blur(image):
    """3x3 binomial blur with clamped edges, rounded half up."""
    p = np.pad(image.astype(np.int32), 1, mode="edge")
    rows = p[:-2] + 2 * p[1:-1] + p[2:]
    return ((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) // 16).astype(np.uint8)


def main():
    rng = np.random.Generator(np.random.PCG64(2024))

    vector_add("ordinary", rng.uniform(-10, 10, N), rng.normal(0, 3, N))

    a = f32_from_bits(rng.integers(0, 0x0080_0000, N) | rng.integers(0, 2, N) << 31)
    b = f32_from_bits(rng.integers(0, 0x0100_0000, N) | rng.integers(0, 2, N) << 31)
    vector_add("subnormal", a, b)

    top = np.finfo(np.float32).max
    a = tile([top, -top, top, 1.0, 16777216.0, -0.0, -0.0, 1e30, np.inf, -np.inf, 3e38, 1.5])
    b = tile([top, -top, -top, 2.0**-24, 1.0, -0.0, 0.0, -1e30, 1.0, 1e38, 3e37, -1.5 - 2.0**-23])
    vector_add("extreme", a, b)

    for name, night in (("landscape", False), ("night", True)):
        image = photograph(rng, night)
        save(name, image)
        save(f"{name}_blurred", blur(image))


if __name__ == "__main__":
    main()
