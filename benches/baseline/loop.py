"""The loop that a script in Python has for the rounds of runjob's bench specs, on PyTorch or CuPy: python3 loop.py MODE ROUNDS.

Inputs are drawn anew on the host in every round, uploaded, computed on, read back, and compared in f64 with NumPy, in
buffers that are made once, page-locked where they can be. One line of JSON goes to standard output. The exit code is 1
when an element was wrong, and 3, with the reason on standard error, where there is no library or no device.
"""

import json
import sys
import time

MODES = ("tiny", "stream", "chain", "matmul")
SIZES = {"tiny": 1024, "stream": 16 << 20, "chain": 1 << 20, "matmul": 512}


def absent(why):
    print(why, file=sys.stderr)
    sys.exit(3)


try:
    import numpy as np
except ImportError:
    absent("NumPy is not installed")


class Torch:
    def __init__(self):
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch has no CUDA device")
        torch.backends.cuda.matmul.allow_tf32 = False
        self.torch, self.name = torch, f"PyTorch {torch.__version__}"
        self.device = torch.cuda.get_device_name(0)

    def pinned(self, shape):
        return self.torch.empty(shape, pin_memory=True).numpy()

    def empty(self, shape):
        return self.torch.empty(shape, device="cuda")

    def upload(self, host, device):
        device.copy_(self.torch.from_numpy(host), non_blocking=True)

    def download(self, device, host):
        self.torch.from_numpy(host).copy_(device, non_blocking=True)
        self.torch.cuda.synchronize()

    def add(self, x, y, out):
        self.torch.add(x, y, out=out)

    def affine(self, x, scale, shift, out):
        self.torch.mul(x, scale, out=out)
        out.add_(shift)

    def matmul(self, a, b, out):
        self.torch.matmul(a, b, out=out)


class Cupy:
    def __init__(self):
        import cupy
        import cupyx

        if cupy.cuda.runtime.getDeviceCount() == 0:
            raise RuntimeError("CuPy has no CUDA device")
        self.cupy, self.cupyx, self.name = cupy, cupyx, f"CuPy {cupy.__version__}"
        self.device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()

    def pinned(self, shape):
        return self.cupyx.empty_pinned(shape, dtype=np.float32)

    def empty(self, shape):
        return self.cupy.empty(shape, dtype=np.float32)

    def upload(self, host, device):
        device.set(host)

    def download(self, device, host):
        device.get(out=host)

    def add(self, x, y, out):
        self.cupy.add(x, y, out=out)

    def affine(self, x, scale, shift, out):
        self.cupy.multiply(x, np.float32(scale), out=out)
        out += np.float32(shift)

    def matmul(self, a, b, out):
        self.cupy.matmul(a, b, out=out)


def library():
    reasons = []
    for kind in (Torch, Cupy):
        try:
            return kind()
        except Exception as error:  # whatever a library without its driver raises
            reasons.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
    absent("; ".join(reasons))


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in MODES or not sys.argv[2].isdigit() or int(sys.argv[2]) == 0:
        print("usage: loop.py tiny|stream|chain|matmul ROUNDS", file=sys.stderr)
        sys.exit(2)
    mode, rounds = sys.argv[1], int(sys.argv[2])
    n = SIZES[mode]
    shape = (n, n) if mode == "matmul" else (n,)
    lib, draw = library(), np.random.default_rng(0)
    x, y, z = lib.pinned(shape), lib.pinned(shape), lib.pinned(shape)
    dx, dy, dz, scratch = lib.empty(shape), lib.empty(shape), lib.empty(shape), [lib.empty(shape), lib.empty(shape)]
    rtol, atol = (1e-4, 1e-4) if mode == "matmul" else (1.3e-6, 1e-5)
    bad = 0

    def new(host):
        draw.random(out=host, dtype=np.float32)
        host *= 2
        host -= 1

    def a_round():
        nonlocal bad
        new(x)
        lib.upload(x, dx)
        if mode == "tiny":
            new(y)
            lib.upload(y, dy)
        if mode == "chain":
            source = dx
            for k in range(20):
                target = dz if k == 19 else scratch[k % 2]
                lib.affine(source, 0.5 if k % 2 else 2.0, k % 5 - 2.0, target)
                source = target
        elif mode == "matmul":
            lib.matmul(dx, dy, dz)
        else:
            lib.add(dx, dy, dz)
        lib.download(dz, z)
        if mode == "chain":
            scale, shift = 1.0, 0.0
            for k in range(20):
                by = 0.5 if k % 2 else 2.0
                scale, shift = scale * by, shift * by + k % 5 - 2.0
            want = x.astype(np.float64) * scale + shift
        elif mode == "matmul":
            want = x.astype(np.float64) @ y.astype(np.float64)
        else:
            want = x.astype(np.float64) + y
        bad += int(np.count_nonzero(~(np.abs(z - want) <= atol + rtol * np.abs(want))))

    new(y)
    lib.upload(y, dy)
    for _ in range(min(rounds, 10)):
        a_round()
    start = time.perf_counter()
    for _ in range(rounds):
        a_round()
    seconds = time.perf_counter() - start
    line = {"mode": mode, "library": lib.name, "device": lib.device, "rounds": rounds, "seconds": seconds}
    line |= {"ns_per_round": 1e9 * seconds / rounds, "mismatches": bad}
    print(json.dumps(line))
    sys.exit(bad != 0)


main()
