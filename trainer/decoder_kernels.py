"""Kernels of one decoding step, in Triton: a layer is eight launches, each of which reads what it needs once.

At batch size 1 a step's time is that of reading the weights; what is left to save is everything between them.
Sums are in fp32; what goes from one kernel to the next is in the model's dtype, as in the model itself.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Stretches of the cache that programs read side by side, and keys read at a time.
SPLITS, KEYS = 16, 64
# Rows of a weight and columns of it that a program takes at a time, and its warps: measured on an H200 with the
# shapes of Qwen2.5 7B and 0.5B. Long rows are read in longer pieces; few of them are spread over more programs.
SHORT, LONG, LONG_FEW = (4, 512, 4), (8, 2048, 8), (2, 2048, 8)


@triton.jit(do_not_specialize=["rank_octets"])
def _matvec_kernel(
    x_ptr, norm_ptr, weight_ptr, bias_ptr, low_ptr, b_ptr, out_ptr, rows, columns, rank_octets, eps,
    NORM: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, GATED: tl.constexpr,
    LOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = weight · norm(x) + bias + b · low, added to out (ADD), or silu(first half) · second half (GATED).

    low: (rank) of fp32 and, as the sums here, without norm's scale: as many more columns. A sum of their own would
    cost each program as long again as its weights do. One kernel for all ranks: an adapter waits for no compiler.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    valid = row < rows
    acc = tl.zeros((ROWS, COLUMNS), tl.float32)
    up = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = column < columns
        x = tl.load(x_ptr + column, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_ptr + column, mask=inside, other=0.0).to(tl.float32)
        place = row[:, None].to(tl.int64) * columns + column[None, :]
        both = valid[:, None] & inside[None, :]
        acc += (
            tl.load(weight_ptr + place, mask=both, other=0.0, eviction_policy="evict_first").to(tl.float32) * x[None, :]
        )
        if GATED:
            place += rows.to(tl.int64) * columns
            up += (
                tl.load(weight_ptr + place, mask=both, other=0.0, eviction_policy="evict_first").to(tl.float32)
                * x[None, :]
            )
    if LOW:
        ranks = rank_octets * 8
        for start in range(0, ranks, COLUMNS):
            rank = start + tl.arange(0, COLUMNS)
            low = tl.load(low_ptr + rank, mask=rank < ranks, other=0.0)
            place = row[:, None] * ranks + rank[None, :]
            both = valid[:, None] & (rank < ranks)[None, :]
            acc += tl.load(b_ptr + place, mask=both, other=0.0).to(tl.float32) * low[None, :]
            if GATED:
                place += rows * ranks
                up += tl.load(b_ptr + place, mask=both, other=0.0).to(tl.float32) * low[None, :]
    y = tl.sum(acc, axis=1)
    z = tl.sum(up, axis=1)
    if NORM:
        scale = tl.rsqrt(tl.sum(squares, axis=0) / columns + eps)
        y *= scale
        z *= scale
    kind = out_ptr.dtype.element_ty
    if BIAS:
        y += tl.load(bias_ptr + row, mask=valid, other=0.0).to(tl.float32)
        if GATED:
            z += tl.load(bias_ptr + rows + row, mask=valid, other=0.0).to(tl.float32)
    if GATED:
        y = y.to(kind).to(tl.float32)
        y = (y * tl.sigmoid(y)).to(kind).to(tl.float32) * z.to(kind).to(tl.float32)
    if ADD:
        y = y.to(kind).to(tl.float32) + tl.load(out_ptr + row, mask=valid, other=0.0).to(tl.float32)
    tl.store(out_ptr + row, y.to(kind), mask=valid)


@triton.jit
def _low_kernel(
    x_ptr, norm_ptr, a_ptr, low_ptr, columns, NORM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """a · (x · norm) in fp32, some rows a program, in few long pieces: there is little to read, and it is waited for."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    acc = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = column < columns
        x = tl.load(x_ptr + column, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            x *= tl.load(norm_ptr + column, mask=inside, other=0.0).to(tl.float32)
        place = row[:, None] * columns + column[None, :]
        acc += tl.load(a_ptr + place, mask=inside[None, :], other=0.0).to(tl.float32) * x[None, :]
    tl.store(low_ptr + row, tl.sum(acc, axis=1))


@triton.jit
def _rotate_and_keep_kernel(
    qkv_ptr, cos_ptr, sin_ptr, q_norm_ptr, k_norm_ptr, keys_ptr, values_ptr, position_ptr, capacity, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, NORM: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """One head of a token a program: queries are rotated in place, keys and values go to the cache. SIZE: head_dim."""
    head, token = tl.program_id(0), tl.program_id(1)
    position = tl.load(position_ptr) + token
    index = tl.arange(0, HALF)
    inside = index < SIZE // 2
    first_ptr = qkv_ptr + (token * (HEADS + 2 * KV_HEADS) + head) * SIZE + index
    first = tl.load(first_ptr, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(first_ptr + SIZE // 2, mask=inside, other=0.0).to(tl.float32)
    kind = qkv_ptr.dtype.element_ty
    if head < HEADS + KV_HEADS:
        if NORM:
            norm_ptr = q_norm_ptr if head < HEADS else k_norm_ptr
            scale = tl.rsqrt((tl.sum(first * first) + tl.sum(second * second)) / SIZE + eps)
            first = first * scale * tl.load(norm_ptr + index, mask=inside, other=0.0).to(tl.float32)
            second = second * scale * tl.load(norm_ptr + SIZE // 2 + index, mask=inside, other=0.0).to(tl.float32)
        angle = position * SIZE + index
        cos = tl.load(cos_ptr + angle, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + angle, mask=inside, other=0.0).to(tl.float32)
        turned = first * cos - second * sin
        second = second * cos + first * sin
        first = turned
    if head < HEADS:
        target = first_ptr
    elif head < HEADS + KV_HEADS:
        target = keys_ptr + ((head - HEADS) * capacity + position) * SIZE + index
    else:
        target = values_ptr + ((head - HEADS - KV_HEADS) * capacity + position) * SIZE + index
    tl.store(target, first.to(kind), mask=inside)
    tl.store(target + SIZE // 2, second.to(kind), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def _attend_kernel(
    q_ptr, keys_ptr, values_ptr, position_ptr, mixed_ptr, most_ptr, total_ptr, tokens, stride, capacity, scale,
    GROUP: tl.constexpr, QUERIES: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
    SPLITS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Some queries of a kv head over one stretch of its keys: weighted values, largest score and sum of weights.

    A row is one of the group's heads of one of the tokens, which come at `position` and after; stride: of a token's q.
    """
    kv_head, split = tl.program_id(0), tl.program_id(1)
    row = tl.program_id(2) * QUERIES + tl.arange(0, QUERIES)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    valid = token < tokens
    position = tl.load(position_ptr)
    length = position + tokens
    stretch = tl.cdiv(tl.cdiv(length, SPLITS), KEYS) * KEYS
    begin = split * stretch
    end = tl.minimum(begin + stretch, length)
    column = tl.arange(0, WIDTH)
    here = valid[:, None] & (column < SIZE)[None, :]
    q = tl.load(q_ptr + (token * stride + head * SIZE)[:, None] + column[None, :], mask=here, other=0.0)
    most = tl.full((QUERIES,), -1e30, tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, WIDTH), tl.float32)
    for start in range(begin, end, KEYS):
        place = start + tl.arange(0, KEYS)
        inside = (place < end)[:, None] & (column < SIZE)[None, :]
        where = (kv_head * capacity + place)[:, None] * SIZE + column[None, :]
        k = tl.load(keys_ptr + where, mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k)) * scale
        seen = (place < end)[None, :] & (place[None, :] <= position + token[:, None])
        larger = tl.maximum(most, tl.max(tl.where(seen, scores, -1e30), axis=1))
        weights = tl.where(seen, tl.exp(scores - larger[:, None]), 0.0)
        shrink = tl.exp(most - larger)
        v = tl.load(values_ptr + where, mask=inside, other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
        total = total * shrink + tl.sum(weights, axis=1)
        most = larger
    found = (token * GROUP * tl.num_programs(0) + head) * SPLITS + split
    tl.store(mixed_ptr + found[:, None] * SIZE + column[None, :], mixed, mask=here)
    tl.store(most_ptr + found, most, mask=valid)
    tl.store(total_ptr + found, total, mask=valid)


@triton.jit
def _join_kernel(
    mixed_ptr, most_ptr, total_ptr, out_ptr, SIZE: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr
):
    """One head of a token a program: what its stretches found, put together."""
    head = tl.program_id(0)
    split, column = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    most = tl.load(most_ptr + head * SPLITS + split)
    weight = tl.exp(most - tl.max(most, axis=0))
    total = tl.sum(weight * tl.load(total_ptr + head * SPLITS + split), axis=0)
    place = (head * SPLITS + split)[:, None] * SIZE + column[None, :]
    mixed = tl.load(mixed_ptr + place, mask=(column < SIZE)[None, :], other=0.0)
    out = tl.sum(mixed * weight[:, None], axis=0) / total
    tl.store(out_ptr + head * SIZE + column, out.to(out_ptr.dtype.element_ty), mask=column < SIZE)


@triton.jit
def _gate_kernel(both_ptr, out_ptr, half, WIDTH: tl.constexpr):
    """out = silu(first half of a row) · second half."""
    row = tl.program_id(0)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < half
    first = tl.load(both_ptr + row * 2 * half + column, mask=inside, other=0.0)
    second = tl.load(both_ptr + row * 2 * half + half + column, mask=inside, other=0.0)
    gate = first.to(tl.float32)
    gate = (gate * tl.sigmoid(gate)).to(first.dtype).to(tl.float32)
    tl.store(out_ptr + row * half + column, (gate * second.to(tl.float32)).to(first.dtype), mask=inside)


def matvec(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    bias: Tensor | None = None,
    low: tuple[Tensor, Tensor] | None = None,
    add: bool = False,
    gated: bool = False,
) -> None:
    """x: (in) · weight: (out, in) · out: (out), or half of it when `gated`.

    low: an adapter's a (rank, in) and b (out, rank), of a rank that is a multiple of 8.
    """
    rows, columns = weight.shape
    rows = rows // 2 if gated else rows
    each, width, warps = SHORT if columns <= 4096 else LONG if rows > 2048 else LONG_FEW
    a, b = low or (x, x)
    through = _multiplied(x, a, norm) if low else x
    _matvec_kernel[(triton.cdiv(rows, each),)](
        x, x if norm is None else norm, weight, x if bias is None else bias, through, b, out, rows, columns,
        len(a) // 8 if low else 0, eps, NORM=norm is not None, BIAS=bias is not None, ADD=add, GATED=gated,
        LOW=low is not None, ROWS=each, COLUMNS=width, num_warps=warps,
    )  # fmt: skip


def _multiplied(x: Tensor, a: Tensor, norm: Tensor | None) -> Tensor:
    """a · (x · norm) in fp32: (rank)."""
    rank, columns = a.shape
    low = torch.empty(rank, device=x.device)
    _low_kernel[(rank // 2,)](
        x, x if norm is None else norm, a, low, columns, NORM=norm is not None, ROWS=2, COLUMNS=4096, num_warps=8
    )
    return low


def rotate_and_keep(
    qkv: Tensor, tables: tuple[Tensor, Tensor], norms: tuple[Tensor, Tensor] | None, keys: Tensor, values: Tensor,
    position: Tensor, heads: int, eps: float,
) -> None:  # fmt: skip
    """qkv: (tokens, (heads + 2 kv_heads) · head_dim) · tables: cos, sin (positions, head_dim) · keys, values: (kv_heads,
    capacity, head_dim) · position: of the first token, int64 (1)."""
    kv_heads, capacity, size = keys.shape
    q_norm, k_norm = norms or (qkv, qkv)
    _rotate_and_keep_kernel[(heads + 2 * kv_heads, len(qkv))](
        qkv, *tables, q_norm, k_norm, keys, values, position, capacity, eps,
        HEADS=heads, KV_HEADS=kv_heads, NORM=norms is not None, SIZE=size, HALF=triton.next_power_of_2(size // 2),
        num_warps=1,
    )  # fmt: skip


def attend(qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor, heads: int) -> Tensor:
    """Causal attention of the rotated queries in `qkv` (tokens, …) over the cache up to their own places.

    keys, values: (kv_heads, capacity, head_dim) · position: of the first token. Returns (tokens, heads · head_dim).
    """
    tokens, (kv_heads, capacity, size) = len(qkv), keys.shape
    group, width = heads // kv_heads, triton.next_power_of_2(size)
    queries = 16 if tokens * group <= 16 else 64
    mixed = torch.empty(tokens * heads * SPLITS, size, device=qkv.device)
    most, total = torch.empty(2, tokens * heads * SPLITS, device=qkv.device)
    _attend_kernel[(kv_heads, SPLITS, triton.cdiv(tokens * group, queries))](
        qkv, keys, values, position, mixed, most, total, tokens, qkv.shape[1], capacity, size**-0.5,
        GROUP=group, QUERIES=queries, SIZE=size, WIDTH=width, SPLITS=SPLITS, KEYS=KEYS, num_warps=4,
    )  # fmt: skip
    out = torch.empty(tokens, heads * size, dtype=qkv.dtype, device=qkv.device)
    _join_kernel[(tokens * heads,)](mixed, most, total, out, SIZE=size, WIDTH=width, SPLITS=SPLITS, num_warps=4)
    return out


def gated(both: Tensor) -> Tensor:
    """silu(first half) · second half of each row of (tokens, 2 · inner)."""
    half = both.shape[1] // 2
    out = both.new_empty(len(both), half)
    _gate_kernel[(len(both), triton.cdiv(half, 1024))](both, out, half, WIDTH=1024, num_warps=4)
    return out
