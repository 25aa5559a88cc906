"""Which form of the GPU kernels a card takes: one table, by compute capability. Nothing here needs Triton or a GPU."""

from typing import Any, Literal, NamedTuple

KIB = 1 << 10
# Left of shared memory for what a kernel needs besides the tiles of its operands.
RESERVED = 34 * KIB


class Tile(NamedTuple):
    """What one program computes, ``height x width`` of the result, and how: `depth` terms of the sum at a time."""

    height: int
    width: int
    depth: int
    warps: int
    stages: int


class Form(NamedTuple):
    """How the kernels are compiled for a generation of cards.

    Attributes:
        name: of the generation.
        copies: ``"bulk"`` for tensor descriptors, which the copy engine reads; ``"plain"`` for pointers, of which
            Triton makes asynchronous copies (``cp.async``).
        instruction: of the tensor cores, as PTX calls it.
        shared: bytes of shared memory that a program may use.
        tiles: height and width of a program's result, largest first, and its warps.
        elements: of all results that a program holds, at most, of half types and of float32: more spill out of the
            registers.
        depth: bytes of an operand's row that are read at a time.
    """

    name: str
    copies: Literal["bulk", "plain"]
    instruction: str
    shared: int
    tiles: dict[tuple[int, int], int]
    elements: tuple[int, int]
    depth: int


_LARGE = {(128, 256): 8, (128, 128): 8, (64, 128): 4, (64, 64): 4}
_HOPPER = {(256, 128): 8, (128, 128): 8, (64, 128): 4, (64, 64): 4}  # on an H100 7 % ahead of _LARGE
_MEDIUM = {(128, 128): 8, (128, 64): 8, (64, 64): 4}
_AMPERE = Form("Ampere", "plain", "mma.sync", 99 * KIB, _MEDIUM, (128 * 128, 128 * 128), 64)

# From this compute capability on.
FORMS = {
    (8, 0): _AMPERE._replace(name="Ampere (A100)", shared=163 * KIB),
    (8, 6): _AMPERE,
    (8, 9): _AMPERE._replace(name="Ada"),
    (9, 0): Form("Hopper", "bulk", "wgmma.mma_async", 227 * KIB, _HOPPER, (128 * 256, 128 * 256), 128),
    (10, 0): Form("Blackwell (data centre)", "bulk", "tcgen05.mma", 227 * KIB, _LARGE, (128 * 256, 128 * 128), 128),
    (12, 0): Form("Blackwell", "bulk", "mma.sync", 99 * KIB, _MEDIUM, (128 * 128, 128 * 128), 64),
}


def form_of(capability: tuple[int, int]) -> Form | None:
    """The form for a card of this compute capability; None for one that is older than all of them.

    Example:
        >>> form_of((8, 7)).name, form_of((7, 5))
        ('Ampere', None)
    """
    older = [since for since in FORMS if since <= capability]
    return FORMS[max(older)] if older else None


def fitting_tiles(form: Form, *, itemsize: int, accumulators: int = 1, exact: bool = False) -> list[Tile]:
    """The tiles that a card of this form holds, largest first.

    Args:
        form: of the card.
        itemsize: bytes of an element of x.
        accumulators: how many results a program holds at a time.
        exact: whether float32 is multiplied as such, for which there are no tensor cores.
    """
    depth = 16 if exact else form.depth // itemsize
    most = accumulators * 64 * 64 if exact else form.elements[itemsize == 4]

    def stages(height: int, width: int) -> int:
        return min(4, (form.shared - RESERVED) // ((height + width) * depth * itemsize))

    return [
        Tile(*shape, depth, warps, stages(*shape))
        for shape, warps in form.tiles.items()
        if accumulators * shape[0] * shape[1] <= most
        if stages(*shape) >= 2
    ]


def choose_tile(form: Form, processors: int, rows: int, columns: int, count: int, **needs: Any) -> Tile:
    """The largest tile that fits and of which there is still one for nine in ten processors; else the smallest.

    Args:
        form: of the card.
        processors: how many the card has.
        rows: of a result.
        columns: of a result.
        count: how many results there are.
        **needs: see `fitting_tiles`.
    """
    fitting = fitting_tiles(form, **needs)
    enough = (
        tile for tile in fitting if count * -(-rows // tile.height) * -(-columns // tile.width) >= 0.9 * processors
    )
    return next(enough, fitting[-1])
