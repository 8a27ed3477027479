"""Recomputing sampled artifacts of a node and naming the likely cause when they differ."""

import random
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from . import artifact
from .decoder import SHAPES, Decoder
from .records import in_range, several
from .report import judged, skipped

ROUTING_FLIP = 1.0
BF16_NOISE = 0.1
# Two honest f32 runs differ by at most 1e-5, a step of half precision is 2.4e-4: 4 % of numbers at most.
OTHER_HALVES = 0.25


@dataclass(frozen=True)
class Sampling:
    """How many artifacts per node and exam (0 = all), and the seed of the choice."""

    size: int
    seed: int


@lru_cache(maxsize=16)
def decoder_of(recipe, tag, dtype):
    """A decoder with its weights; the exams of a ledger share them."""
    return Decoder(recipe, tag, dtype)


@dataclass
class Recomputed:
    """What came of one node's sample."""

    outcome: object
    count: int = 0
    worst: float = 0.0


def round_of(exam, host, model):
    """The common part of a host's nonces in an exam."""
    return artifact.Round(exam.seed, host.public_key, model.seq_len, model.k_dim, exam.stronger_rng)


def hard_limit(model):
    """The distance that no honest rounding explains, whatever the binomial test says.

    f32 runs agree to the last bit or two, so the threshold itself. Two honest bf16 runs of the tiny
    dense models were never seen further apart than 0.04; a routing flip of the tiny MoE reached 0.84.
    """
    threshold = model.stat.dist_threshold
    if model.dtype == "F32":
        return threshold
    return max(threshold, ROUTING_FLIP if SHAPES[model.recipe].experts else BF16_NOISE)


def sample_of(sampling, exam, host, node, artifacts):
    """Up to `sample` artifacts (0 = all), first and last included, the same for the same seed."""
    good = sorted((a for a in artifacts if in_range(a) and a.vector is not None), key=lambda a: a.nonce)
    if not sampling.size or len(good) <= sampling.size:
        return good
    ends = [good[0], good[-1]][: sampling.size]
    key = f"{sampling.seed}:{exam.index}:{host.address}:{node.node_num}"
    return ends + random.Random(key).sample(good[1:-1], sampling.size - len(ends))


def check_node(sampling, exam, host, node, model, artifacts):
    """B4.1 with our own decoder: distances, the hard limit, the binomial test."""
    chosen = sample_of(sampling, exam, host, node, artifacts)
    if not chosen:
        return Recomputed(skipped("recompute", f"node {node.node_id} has no artifact to recompute"))
    decoder, round_ = decoder_of(model.recipe, model.tag, model.dtype), round_of(exam, host, model)
    computed = artifact.compute(decoder, round_, [a.nonce for a in chosen])
    distances = [artifact.distance(a.vector, v) for a, v in zip(chosen, computed, strict=True)]
    wrong = _judge(model, chosen, distances) or _rounding(model, chosen, computed)
    if wrong:
        limit = hard_limit(model)
        suspects = [a for a, d in zip(chosen, distances, strict=True) if d > model.stat.dist_threshold]
        wrong = f"node {node.node_id}: {wrong}{explain(decoder, round_, suspects[:8], limit)}"
    return Recomputed(judged("recompute", wrong), len(chosen), max(distances))


def _judge(model, chosen, distances):
    stat, limit = model.stat, hard_limit(model)
    far = [(a, d) for a, d in zip(chosen, distances, strict=True) if d > limit]
    if far:
        shown = several(f"nonce {a.nonce} by L2 {d:.4f}" for a, d in far)
        return f"{shown} beyond {limit:g} ({len(far)} of {len(chosen)} sampled)"
    mismatches = sum(d > stat.dist_threshold for d in distances)
    p = artifact.binomial_tail(mismatches, len(chosen), stat.p_mismatch)
    if p < stat.fraud_threshold:
        return f"{mismatches} of {len(chosen)} sampled beyond {stat.dist_threshold:g}, p {p:.2e} < {stat.fraud_threshold:g}"
    return ""


def _rounding(model, chosen, computed):
    """An f32 run leaves no room for other halves than ours but by chance: many mean another rounding."""
    if model.dtype != "F32":
        return ""
    received = np.stack([np.frombuffer(a.vector, dtype="<f2") for a in chosen])
    other = np.count_nonzero(received != computed)
    if other <= OTHER_HALVES * received.size:
        return ""
    return f"{other} of {received.size} sampled numbers are not those that rounding to nearest gives"


def explain(decoder, round_, suspects, limit):
    """Which known mistake reproduces the received vectors, if one does."""
    other_case = round_.block_hash.swapcase()
    variants = {
        "the layer reflections off": {"hooks": False},
        "the block hash in the other case": {"round_": replace(round_, block_hash=other_case)},
        "the other input generator": {"round_": replace(round_, stronger_rng=not round_.stronger_rng)},
        "picks in order of score": {"order": lambda by_score: by_score},
    }
    nonces = [a.nonce for a in suspects]
    for name, change in variants.items():
        arguments = {"round_": round_, **change}
        vectors = artifact.compute(decoder, nonces=nonces, **arguments)
        if all(artifact.distance(a.vector, v) <= limit for a, v in zip(suspects, vectors, strict=True)):
            return f"; they are what {name} would give"
    return ""
