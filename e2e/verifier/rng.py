"""The random numbers of PoC v2 (docs/poc-v2.md B1, B2): seeds, murmur-style hash, uniforms, normals.

Every function works on a batch of seeds at once; row i of a result belongs to seed i.
"""

import hashlib

import numpy as np

TWO_PI = np.float32(6.283185307179586)
SMALLEST_U1 = np.float32(1e-10)


def seed_of(text):
    """B1: the first 4 bytes of SHA-256 of the UTF-8 text, big-endian."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def seeds_of(texts):
    """B1 for many texts, as a u32 array."""
    return np.array([seed_of(text) for text in texts], dtype=np.uint32)


def _rotl(x, r):
    return (x << np.uint32(r)) | (x >> np.uint32(32 - r))


def hash32(keys, seeds):
    """B2: one-block murmur3 of 4-byte keys without the length XOR; broadcasts keys against seeds."""
    k = np.atleast_1d(np.asarray(keys, dtype=np.uint32)) * np.uint32(0xCC9E2D51)
    k = _rotl(k, 15) * np.uint32(0x1B873593)
    h = np.atleast_1d(np.asarray(seeds, dtype=np.uint32)) ^ k
    h = _rotl(h, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h


def uniform(seeds, first, count):
    """B2: uniforms at indices first..first+count-1 for each seed; 1.0 is a possible value."""
    keys = np.arange(first, first + count, dtype=np.uint32)
    hashes = hash32(keys[None, :], np.atleast_1d(seeds)[:, None])
    return hashes.astype(np.float32) * np.float32(2.0**-32)


def normal(seeds, count):
    """B2: Box-Muller, cosines first, then sines; the transcendental functions are rounded once from f64."""
    half = (count + 1) // 2
    u1 = np.maximum(uniform(seeds, 0, half), SMALLEST_U1)
    angle = TWO_PI * uniform(seeds, half, half)
    radius = np.sqrt(np.float32(-2) * np.log(u1.astype(np.float64)).astype(np.float32))
    angle = angle.astype(np.float64)
    cosines = radius * np.cos(angle).astype(np.float32)
    sines = radius * np.sin(angle).astype(np.float32)
    return np.concatenate([cosines, sines], axis=1)[:, :count]


def stronger_normal(texts, count):
    """B2 "concat_murmur": eight seeds from the whole SHA-256, an eighth of the values from each."""
    part = -(-count // 8)
    words = [np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=">u4") for text in texts]
    words = np.array(words, dtype=np.uint32)
    lengths = [min(part, count - k * part) for k in range(8) if k * part < count]
    return np.concatenate([normal(words[:, k], length) for k, length in enumerate(lengths)], axis=1)


def pseudo_ids(seed, count, vocabulary):
    """B3.1, models that need token ids: hash of the position modulo the vocabulary."""
    return hash32(np.arange(count, dtype=np.uint32), seed) % np.uint32(vocabulary)
