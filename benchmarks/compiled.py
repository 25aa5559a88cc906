"""What compilers say of the GPU kernels, without a GPU: `python benchmarks/gpu.py --compile` prints it.

The launches are the library's own, on tensors without data, for every generation, type and tile that it can choose;
instead of being run, their kernels are compiled, as Triton would compile them there, at THUMOS14's shapes.
"""

import contextlib
import io
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

from backtal.ops import forms
from backtal.ops import triton as kernels

CAPABILITIES = ((8, 0), (8, 9), (9, 0), (10, 0), (12, 0))
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "TF32": torch.float32}
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
BATCH, WIDTH, LENGTH, TAPS, STREAMS = 16, 2048, 750, 3, 2
# Of a processor: registers, and threads, which are fewer on cards that are made for pictures.
REGISTERS = 65536
THREADS = {(8, 0): 2048, (8, 9): 1536, (9, 0): 2048, (10, 0): 2048, (12, 0): 1536}


def launches(capability, dtype, index):
    """The kernel launches of a forward and a backward with the index-th tile that fits: (kernel, arguments, tile)."""
    form, caught = forms.form_of(capability), []

    def tile(x, rows, columns, count, **needs):
        fitting = forms.fitting_tiles(form, itemsize=x.element_size(), **needs)
        return fitting[index] if index < len(fitting) else None

    def launch(kernel, programs, tile, x, *arguments):
        precision = "tf32" if dtype == torch.float32 else "ieee"
        caught.append((kernel, (*arguments, precision, tile.height, tile.width, tile.depth), tile))

    kernels._card, kernels._tile, kernels._launch = lambda x: (form, 132), tile, launch
    options = {"dtype": dtype, "device": "meta"}
    x, weight = torch.empty(BATCH, WIDTH, LENGTH, **options), torch.empty(TAPS, WIDTH, WIDTH, **options)
    affinity = torch.empty(STREAMS, BATCH, TAPS, LENGTH, **options)
    grad = torch.empty(STREAMS, BATCH, WIDTH, LENGTH, **options)
    for wanted in (None, (True, False, True), (False, True, False)):
        with contextlib.suppress(AttributeError):  # no such tile
            if wanted is None:
                kernels.forward(x, weight.permute(1, 2, 0), affinity, 1)
            else:
                kernels.backward(grad, x, weight.permute(1, 2, 0), affinity, 1, wanted)
    return caught


def signature(kernel, arguments):
    """Types, constants and alignment of a kernel's arguments, as Triton finds them when it is launched."""
    types, constants, aligned = {}, {}, {}

    def kind(value, place, free=False):
        if isinstance(value, TensorDescriptor):
            return f"tensordesc<{NAMES[value.base.dtype]}[{', '.join(map(str, value.block_shape))}]>"
        if isinstance(value, tuple):
            return tuple(kind(one, (*place, i)) for i, one in enumerate(value))
        if isinstance(value, torch.Tensor):
            aligned[place] = [["tt.divisibility", 16]]
            return "*" + NAMES[value.dtype]
        if free:
            return "i32"
        if value == 1:
            constants[place] = 1
            return "constexpr"
        if value % 16 == 0:
            aligned[place] = [["tt.divisibility", 16]]
        return "i32" if value < 2**31 else "i64"

    for i, (parameter, value) in enumerate(zip(kernel.params, arguments, strict=True)):
        if parameter.is_constexpr:
            constants[i,], types[parameter.name] = value, "constexpr"
        types[parameter.name] = (
            "constexpr" if parameter.is_constexpr else kind(value, (i,), parameter.do_not_specialize)
        )
    return types, constants, aligned


def rows_of(job):
    """One row for each kernel: registers, spills, shared memory, programs that a processor holds, instructions."""
    capability, dtype, index = job
    knobs.compilation.always_compile = knobs.nvidia.dump_ptxas_log = True
    form, rows, seen = forms.form_of(capability), [], set()
    for kernel, arguments, tile in launches(capability, TYPES[dtype], index):
        types, constants, aligned = signature(kernel, arguments)
        if kernel.__name__ in seen or (tile.depth == 1 and index > 0):  # each tap launches the same
            continue
        seen.add(kernel.__name__)
        source = ASTSource(kernel, types, constants, aligned)
        target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
        options = {"num_warps": tile.warps, "num_stages": tile.stages, **kernels.COMPILED}
        with contextlib.redirect_stdout(io.StringIO()) as log:
            compiled = triton.compile(source, target=target, options=options)
        said, code = log.getvalue(), compiled.asm["ptx"]
        registers = int(re.findall(r"Used (\d+) registers", said)[0])
        threads, shared = 32 * compiled.metadata.num_warps, compiled.metadata.shared
        rows.append(
            {
                "capability": ".".join(map(str, capability)),
                "generation": form.name,
                "kernel": kernel.__name__.strip("_").removesuffix("_kernel"),
                "type": dtype,
                "tile": f"{tile.height} x {tile.width} x {tile.depth}",
                "warps": tile.warps,
                "stages": tile.stages,
                "registers": registers,
                "spilled bytes": sum(map(int, re.findall(r"(\d+) bytes spill stores", said))),
                "shared KiB": round(shared / forms.KIB, 1),
                "programs a processor": min(
                    REGISTERS // (-(-registers // 8) * 8 * threads),
                    THREADS[capability] // threads,
                    (form.shared + forms.KIB) // (shared + forms.KIB),
                ),
                "products": f"{len(re.findall(re.escape(form.instruction), code))} {form.instruction}",
                "copies": f"{len(re.findall('cp.async.(?:bulk.tensor|c[ag])', code))}",
                "serialized": "yes" if re.search("C751[0-9]|serialized", said) else "no",
            }
        )
    return rows


def table(capabilities=CAPABILITIES, types=tuple(TYPES)):
    """All rows, compiled on all cores."""
    jobs = [(one, dtype, index) for one in capabilities for index in range(4) for dtype in types]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        return [row for rows in pool.map(rows_of, jobs) for row in rows]
