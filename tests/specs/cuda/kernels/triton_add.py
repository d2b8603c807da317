"""Makes `triton_add.cubin` (for compute capability 9.0), `triton_add.ptx` (for 8.0 and later) and the metadata of both,
`triton_add.json`, beside this file. No GPU is needed: python triton_add.py, with Triton 3.9."""

import json
import os
import pathlib

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # which would name files of the machine

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def triton_add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(out + at, tl.load(x + at, mask=inside) + tl.load(y + at, mask=inside), mask=inside)


def compiled(arch):
    signature = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32", "BLOCK": "constexpr"}
    source = ASTSource(fn=triton_add, signature=signature, constexprs={"BLOCK": 1024})
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 4})


here = pathlib.Path(__file__).with_suffix("")
here.with_suffix(".ptx").write_text(compiled(80).asm["ptx"].rstrip() + "\n")
kernel = compiled(90)
here.with_suffix(".cubin").write_bytes(kernel.asm["cubin"])
metadata = kernel.metadata._asdict()
metadata["target"] = vars(metadata["target"])
metadata["extern_libs"] = []  # paths of the machine
here.with_suffix(".json").write_text(json.dumps(metadata, indent=2) + "\n")
