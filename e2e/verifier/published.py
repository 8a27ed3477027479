"""Comparing our numbers with published arrays, within the tolerances that the publication states."""

import hashlib

import numpy as np

from .foreign import short
from .report import failed, judged

NORMAL_ATOL = 2e-6


def array(value):
    """(flat values, flat indices they stand for) of a published array; big ones list only their ends."""
    dtype = np.dtype(value.field("dtype").text()).newbyteorder("<")
    size = 1
    for dimension in value.field("shape").items():
        size *= dimension.natural()
    if value.has("hex_le"):
        return _bytes(value.field("hex_le"), dtype), np.arange(size)
    first, last = _bytes(value.field("first_hex_le"), dtype), _bytes(value.field("last_hex_le"), dtype)
    where = np.concatenate([np.arange(len(first)), np.arange(size - len(last), size)])
    return np.concatenate([first, last]), where


def _bytes(value, dtype):
    try:
        return np.frombuffer(bytes.fromhex(value.text()), dtype)
    except ValueError as error:
        raise value.wrong(f"is not hex of {dtype} ({error})") from error


def exact(name, got, want):
    """Equal integers, texts or lists of them."""
    got = got.tolist() if isinstance(got, np.ndarray) else got
    return judged(name, "" if got == want else f"is {short(got)}, published {short(want)}")


def close(name, got, value, atol):
    """Each listed element within `atol`."""
    want, where = array(value)
    got = np.asarray(got).reshape(-1)
    if got.size <= where.max(initial=-1):
        return failed(name, f"has {got.size} values, published more")
    return near(name, got[where], want, atol)


def near(name, got, want, atol):
    """Each element within `atol`, NaN never."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return failed(name, f"has shape {got.shape}, published {want.shape}")
    worst = float(np.max(np.abs(got - want), initial=0.0))
    return judged(name, "" if worst <= atol else f"differs by {worst:.3g}, allowed {atol:.3g}")


def identical(name, got, value):
    """Every listed element equal; the digest of the whole array too, since nothing here is rounded."""
    digest = hashlib.sha256(np.ascontiguousarray(got).tobytes()).hexdigest()
    return exact(name, digest, value.field("sha256_le").text())


def bf16_bits(x):
    """The upper half of f32 bits, for values that are bf16 already."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> np.uint32(16)).astype(np.int64)


def bf16_close(name, got, value):
    """Equal bits but for flips by one in fewer than one element of a thousand (one is always allowed)."""
    want, where = array(value)
    got = bf16_bits(got).reshape(-1)
    if got.size <= where.max(initial=-1):
        return failed(name, f"has {got.size} values, published more")
    off = np.abs(got[where] - want.astype(np.int64))
    flips, worst = int(np.count_nonzero(off)), int(off.max(initial=0))
    allowed = max(1, len(want) // 1000)
    bad = worst > 1 or flips > allowed
    return judged(name, f"{flips} of {len(want)} elements differ, by up to {worst} units" if bad else "")
