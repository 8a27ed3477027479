"""The tiny decoders of the demo and the reflections between their layers (docs/poc-v2.md B3.1, B3.3).

Dense Llama, dense Qwen3 and Qwen3 mixture of experts, in f32 or bf16. bf16 values are kept in f32
arrays and rounded after every operation. Weights come from a tag, so nothing has to be shipped.
"""

from dataclasses import dataclass

import numpy as np

from . import rng


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder; `experts` 0 means a dense MLP."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inter: int
    qk_norm: bool
    experts: int = 0
    top_k: int = 0
    eps: float = 1e-6
    theta: float = 1e6


SHAPES = {
    "tiny_llama_dense": Shape(64, 3, 4, 2, 16, 128, False),
    "tiny_qwen3_dense": Shape(96, 4, 6, 2, 16, 160, True),
    "tiny_qwen3_moe": Shape(64, 3, 4, 1, 32, 48, True, experts=8, top_k=2),
}


def to_bf16(x):
    """Rounds f32 to the nearest bf16, ties to even, and keeps it in f32."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isfinite(x), (rounded & np.uint32(0xFFFF0000)).view(np.float32), x)


def to_f32(x):
    """The rounding of an f32 run: none."""
    return np.asarray(x, dtype=np.float32)


ROUNDING = {"F32": to_f32, "BF16": to_bf16}


def unit_reflection(block_hash, layer, hidden):
    """B3.3: the reflection vector after one layer, in f32."""
    v = rng.normal(rng.seeds_of([f"{block_hash}_layer_{layer}_householder"]), hidden)[0]
    return v / np.sqrt(np.sum(v * v, dtype=np.float32))


def reflect(x, v, rounded):
    """B3.3: x - 2(x.v)v on the last axis, rounded after each operation in the run's type."""
    v = rounded(v)
    dot = rounded(np.sum(rounded(x * v), axis=-1, keepdims=True, dtype=np.float32))
    return rounded(x - rounded((np.float32(2) * dot) * v))


class Decoder:
    """One decoder with its weights; `last_hidden` is B3.1 to B3.4 step 1."""

    def __init__(self, name, tag, dtype, shape=None):
        self.name, self.tag, self.rounded = name, tag, ROUNDING[dtype]
        self.shape = shape or SHAPES[name]
        self.layers = [self._layer(i) for i in range(self.shape.layers)]
        self.norm = self._norm_weight("norm", self.shape.hidden)

    def raw_weight(self, name, shape):
        """The weights recipe, before rounding: linear N/sqrt(in), norm 1 + 0.1 N."""
        seeds = rng.seeds_of([f"{self.tag}_{self.name}_{name}"])
        values = rng.normal(seeds, int(np.prod(shape)))[0]
        if len(shape) == 1:
            return np.float32(1) + np.float32(0.1) * values
        return values.reshape(shape) / np.sqrt(np.float32(shape[1]))

    def _norm_weight(self, name, size):
        return self.rounded(self.raw_weight(name, (size,)))

    def _linear(self, name, out, into):
        return self.rounded(self.raw_weight(name, (out, into)))

    def _layer(self, index):
        s, base = self.shape, f"layers.{index}"
        attention = f"{base}.self_attn"
        w = {
            "q": self._linear(f"{attention}.q_proj", s.heads * s.head_dim, s.hidden),
            "k": self._linear(f"{attention}.k_proj", s.kv_heads * s.head_dim, s.hidden),
            "v": self._linear(f"{attention}.v_proj", s.kv_heads * s.head_dim, s.hidden),
            "o": self._linear(f"{attention}.o_proj", s.hidden, s.heads * s.head_dim),
            "norm1": self._norm_weight(f"{base}.input_layernorm", s.hidden),
            "norm2": self._norm_weight(f"{base}.post_attention_layernorm", s.hidden),
        }
        if s.qk_norm:
            w["q_norm"] = self._norm_weight(f"{attention}.q_norm", s.head_dim)
            w["k_norm"] = self._norm_weight(f"{attention}.k_norm", s.head_dim)
        if s.experts:
            w["router"] = self._linear(f"{base}.mlp.gate", s.experts, s.hidden)
        bases = [f"{base}.mlp.experts.{e}" for e in range(s.experts)] or [f"{base}.mlp"]
        for part, out, into in (("gate", s.inter, s.hidden), ("up", s.inter, s.hidden), ("down", s.hidden, s.inter)):
            w[part] = np.stack([self._linear(f"{b}.{part}_proj", out, into) for b in bases])
        return w

    def _project(self, x, weight):
        """x @ weight^T. einsum, because the BLAS under Debian's numpy is the plain reference one."""
        flat = np.einsum("ij,kj->ik", x.reshape(-1, x.shape[-1]), weight)
        return self.rounded(flat).reshape(*x.shape[:-1], -1)

    def _rms_norm(self, x, weight):
        mean = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
        return self.rounded(self.rounded(x / np.sqrt(mean + np.float32(self.shape.eps))) * weight)

    def _rope(self, x):
        """NeoX halves; x is [nonce, head, position, head_dim]."""
        half = self.shape.head_dim // 2
        powers = np.arange(half, dtype=np.float32) / np.float32(half)
        frequency = np.float32(1) / np.power(np.float32(self.shape.theta), powers)
        angle = np.arange(x.shape[2], dtype=np.float32)[:, None] * frequency[None, :]
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = x[..., :half], x[..., half:]
        return self.rounded(np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1))

    def _heads(self, x, weight, heads, norm):
        nonces, positions, _ = x.shape
        y = self._project(x, weight).reshape(nonces, positions, heads, self.shape.head_dim)
        if norm is not None:
            y = self._rms_norm(y, norm)
        return y.transpose(0, 2, 1, 3)

    def _attention(self, x, w):
        s = self.shape
        q = self._rope(self._heads(x, w["q"], s.heads, w.get("q_norm")))
        k = self._rope(self._heads(x, w["k"], s.kv_heads, w.get("k_norm")))
        v = self._heads(x, w["v"], s.kv_heads, None)
        repeat = s.heads // s.kv_heads
        k, v = np.repeat(k, repeat, axis=1), np.repeat(v, repeat, axis=1)
        scores = (q @ k.transpose(0, 1, 3, 2)) / np.sqrt(np.float32(s.head_dim))
        future = np.triu(np.ones(scores.shape[-2:], dtype=bool), 1)
        mixed = softmax(np.where(future, np.float32(-np.inf), scores)) @ v
        mixed = self.rounded(mixed).transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
        return self._project(mixed, w["o"])

    def _mlp(self, x, gate, up, down):
        g = self._project(x, gate)
        g = self.rounded(g / (np.float32(1) + np.exp(-g)))
        return self._project(self.rounded(g * self._project(x, up)), down)

    def route(self, x, w):
        """Weight of every expert for every token, zero for those not chosen."""
        chances = softmax(self._project(x, w["router"]))
        chosen = np.argsort(-chances, axis=-1, kind="stable")[..., : self.shape.top_k]
        kept = np.zeros_like(chances)
        np.put_along_axis(kept, chosen, np.take_along_axis(chances, chosen, -1), -1)
        return kept / np.sum(kept, axis=-1, keepdims=True)

    def _feed_forward(self, x, w):
        outputs = [self._mlp(x, g, u, d) for g, u, d in zip(w["gate"], w["up"], w["down"], strict=True)]
        if not self.shape.experts:
            return outputs[0]
        share = self.route(x, w)
        return self.rounded(sum(out * share[..., e : e + 1] for e, out in enumerate(outputs)))

    def last_hidden(self, inputs, reflections, trace=None):
        """Final-norm hidden state of the last position. `reflections` None = layer hooks off."""
        hidden, residual = self.rounded(inputs), None
        for index, w in enumerate(self.layers):
            residual = hidden if residual is None else self.rounded(hidden + residual)
            hidden = self._attention(self._rms_norm(residual, w["norm1"]), w)
            residual = self.rounded(hidden + residual)
            normed = self._rms_norm(residual, w["norm2"])
            hidden = self._feed_forward(normed, w)
            if reflections is not None:
                hidden = reflect(hidden, reflections[index], self.rounded)
                residual = reflect(residual, reflections[index], self.rounded)
            if trace is not None:
                trace.append((hidden[:, -1], residual[:, -1], normed[:, -1]))
        return self._rms_norm(self.rounded(hidden[:, -1] + residual[:, -1]), self.norm)


def softmax(x):
    """Along the last axis, in f32."""
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)
