"""Makes `triton_add.cubin`, `.ptx` and `.json` beside this file, without a GPU: python triton_add.py [ARCH]."""

import json
import os
import pathlib
import sys

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


signature = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32", "BLOCK": "constexpr"}
source = ASTSource(fn=triton_add, signature=signature, constexprs={"BLOCK": 1024})
arch = int(sys.argv[1]) if len(sys.argv) > 1 else 80
kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 4})

here = pathlib.Path(__file__).with_suffix("")
here.with_suffix(".cubin").write_bytes(kernel.asm["cubin"])
here.with_suffix(".ptx").write_text(kernel.asm["ptx"].rstrip() + "\n")
metadata = kernel.metadata._asdict()
metadata["target"] = {"backend": "cuda", "arch": arch, "warp_size": 32}
metadata["extern_libs"] = []
here.with_suffix(".json").write_text(json.dumps(metadata, indent=2) + "\n")
