#!/usr/bin/env python3
"""Writes the .npy files that the specs beside this folder read. Needs NumPy; the files are committed."""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

four = np.array([0.5, 1.5, 2.5, -1e30], np.float32)
np.save(HERE / "four.npy", four)
np.save(HERE / "five.npy", four + np.float32(1))
np.save(HERE / "wrong.npy", four + np.float32(1) + np.array([0, 0, 0.5, 0], np.float32))
np.save(HERE / "nan.npy", np.array([1.5, np.nan, 3.5, -1e30], np.float32))
np.save(HERE / "four_f64.npy", four.astype(np.float64))
np.save(HERE / "four_by_two.npy", np.arange(8, dtype=np.float32).reshape(4, 2))
np.save(HERE / "fortran.npy", np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)))
np.save(HERE / "big_endian.npy", four.astype(">f4"))
(HERE / "cut.npy").write_bytes((HERE / "four.npy").read_bytes()[:-3])
(HERE / "not_npy.npy").write_text("this is not a .npy file\n")
