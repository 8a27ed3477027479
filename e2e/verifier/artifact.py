"""From a hidden state to the published vector (docs/poc-v2.md B3.4), and the comparison (B4.1)."""

import base64
import binascii
import math
from dataclasses import dataclass

import numpy as np

from . import rng
from .decoder import unit_reflection


@dataclass(frozen=True)
class Round:
    """What all nonces of one host in one exam have in common."""

    block_hash: str
    public_key: str
    seq_len: int
    k_dim: int
    stronger_rng: bool = False


def inputs(round_, nonces, hidden):
    """B3.1: the input embeddings of each nonce, f32, [nonce, position, hidden]."""
    texts = [f"{round_.block_hash}_{round_.public_key}_nonce{n}" for n in nonces]
    count = round_.seq_len * hidden
    if round_.stronger_rng:
        flat = rng.stronger_normal(texts, count)
    else:
        flat = rng.normal(rng.seeds_of(texts), count)
    return flat.reshape(len(texts), round_.seq_len, hidden)


def ascending_scores(seeds, dim, k):
    """B3.4 step 4: the k coordinates of smallest score, best first."""
    scores = rng.hash32(np.arange(dim, dtype=np.uint32)[None, :], np.atleast_1d(seeds)[:, None])
    return np.argsort(scores, axis=1)[:, :k]


def network_order(by_score):
    """B3.4 step 4: all but the worst coordinate by index, the worst of the chosen last."""
    return np.concatenate([np.sort(by_score[:, :-1], axis=1), by_score[:, -1:]], axis=1)


def pick(round_, nonces, dim, order=network_order):
    """B3.4 step 4: the picked coordinates of each nonce, in the order of real GPU nodes."""
    k = round_.k_dim
    texts = [f"{round_.block_hash}_{round_.public_key}_nonce_{n}_pick_{k}" for n in nonces]
    return order(ascending_scores(rng.seeds_of(texts), dim, k))


def rotate(round_, nonces, x):
    """B3.4 step 6: k-1 reflections in the order j = 0.. ."""
    k, stem = round_.k_dim, f"{round_.block_hash}_{round_.public_key}_nonce_"
    for j in range(k - 1):
        v = rng.normal(rng.seeds_of([f"{stem}{n}_haar_hh_{k}_{j}" for n in nonces]), k)
        v = v / (_length(v) + np.float32(1e-30))
        x = x - np.float32(2) * np.sum(x * v, axis=1, keepdims=True) * v
    return x


def _length(x):
    return np.sqrt(np.sum(x * x, axis=-1, keepdims=True, dtype=np.float32))


def finish(round_, nonces, hidden, order=network_order):
    """B3.4 steps 3 to 7: hidden states to f16 vectors; also the picks and the unit vectors."""
    x = hidden / (_length(hidden) + np.float32(1e-8))
    picked = np.take_along_axis(x, pick(round_, nonces, hidden.shape[1], order), axis=1)
    y = rotate(round_, nonces, picked)
    unit = y / (_length(y) + np.float32(1e-8))
    return unit.astype(np.float16), picked, unit


def compute(decoder, round_, nonces, hooks=True, order=network_order):
    """B3 as a whole: the f16 vectors of many nonces, in batches that keep attention scores small."""
    reflections = None
    if hooks:
        layers = range(decoder.shape.layers)
        reflections = [unit_reflection(round_.block_hash, i, decoder.shape.hidden) for i in layers]
    parts, size = [], max(1, min(64, (1 << 22) // round_.seq_len**2))
    for start in range(0, len(nonces), size):
        batch = nonces[start : start + size]
        hidden = decoder.last_hidden(inputs(round_, batch, decoder.shape.hidden), reflections)
        parts.append(finish(round_, batch, hidden, order)[0])
    return np.concatenate(parts) if parts else np.zeros((0, round_.k_dim), np.float16)


def encode(vector):
    """B3.4 step 8: base64 of little-endian f16."""
    return base64.b64encode(np.asarray(vector, dtype="<f2").tobytes()).decode()


def decode(text):
    """The bytes of a vector, or None when the text is not padded standard base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def distance(received, computed):
    """B4.1: L2 in f32 of two f16 vectors; infinite for a wrong length or a value that is not finite."""
    if len(received) != 2 * len(computed):
        return math.inf
    a = np.frombuffer(received, dtype="<f2").astype(np.float32)
    if not np.all(np.isfinite(a)):
        return math.inf
    d = a - np.asarray(computed, dtype=np.float32)
    return float(np.sqrt(np.sum(d * d, dtype=np.float32)))


def binomial_tail(mismatches, total, p):
    """B4.1: P[X >= mismatches] for X ~ Binomial(total, p)."""
    if mismatches <= 0:
        return 1.0
    log_p, log_q = math.log(p), math.log1p(-p)
    logs = [
        math.lgamma(total + 1) - math.lgamma(i + 1) - math.lgamma(total - i + 1) + i * log_p + (total - i) * log_q
        for i in range(mismatches, total + 1)
    ]
    return min(1.0, math.fsum(math.exp(v) for v in logs))
