#!/usr/bin/env python3
"""The proof as the network's reference computes it, in plain torch: what `gpu-bench` compares with.

    replica.py run --vectors VECTORS.json --mode eager|compiled --device cuda --shape JSON --seq-len N --nonces B
    replica.py check VECTORS.json [--mode eager|compiled] [--device cpu]

run    checks itself first, says {"ready": ...}, then answers each line {"batches": n} with {"milliseconds": [...]}, one number a batch, by events of the device.
check  computes the dense models of published vectors and compares; exit status 1 when a vector is too far away.

Like the reference: inputs nonce by nonce, some forty elementwise kernels each; a hook a layer, five kernels a reflection; one batch at a time, its
seeds hashed while the device waits, a full wait after it. In mode `eager` hooks and their vectors are made for every forward pass; in mode
`compiled` layer, reflection and generator are compiled and the vectors kept. Unlike it, and to its advantage: norms and attention are torch's fused
kernels, picks and rotations are computed for all nonces of a batch at once, nothing is sent to another process.
"""

import argparse
import base64
import hashlib
import json
import math
import struct
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(json.dumps({"reason": f"python3 has no torch: {error}"}), flush=True)
    sys.exit(3)

MASK = 0xFFFFFFFF
# Furthest a vector may be from the published one. Compiled code leaves roundings to bf16 out: what it computes is shown in single precision.
ALLOWED = {"eager": {"bf16": 0.02, "fp32": 0.001}, "compiled": {"bf16": 0.03, "fp32": 0.001}}


# --- seeds and numbers


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def seed(text):
    return int.from_bytes(digest(text)[:4], "big")


def hash32(key, seeds):
    """One block of murmur3 over 32-bit keys that stand in 64-bit integers."""
    k = (key * 0xCC9E2D51) & MASK
    k = ((k << 15) | (k >> 17)) & MASK
    k = (k * 0x1B873593) & MASK
    h = seeds ^ k
    h = ((h << 13) | (h >> 19)) & MASK
    h = (h * 5 + 0xE6546B64) & MASK
    h = h ^ (h >> 16)
    h = (h * 0x85EBCA6B) & MASK
    h = h ^ (h >> 13)
    h = (h * 0xC2B2AE35) & MASK
    return h ^ (h >> 16)


def uniform(seeds, first, count, device):
    keys = torch.arange(first, first + count, dtype=torch.int64, device=device)
    return hash32(keys, seeds).to(torch.float32) / 4294967296.0


def normal(seeds, count, device):
    """Box-Muller; `seeds` is a number, or a column of them for a row of numbers each."""
    half = (count + 1) // 2
    u = torch.clamp(uniform(seeds, 0, half, device), min=1e-10)
    w = uniform(seeds, half, half, device)
    radius = torch.sqrt(-2.0 * torch.log(u))
    angle = 2.0 * math.pi * w
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)[..., :count]


def column(seeds, device):
    return torch.tensor(seeds, dtype=torch.int64, device=device).unsqueeze(-1)


# --- the model


class Shape:
    def __init__(self, fields):
        self.hidden, self.layers, self.heads = fields["hidden"], fields["layers"], fields["heads"]
        self.kv_heads, self.head_dim, self.inner = fields["kv_heads"], fields["head_dim"], fields["inter"]
        self.eps, self.theta, self.qk_norm = fields["eps"], fields["theta"], fields["qk_norm"]


def turned(x, cos, sin):
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def reflected(x, v):
    return x - (2 * (x * v).sum(dim=-1, keepdim=True)) * v


def forward_layer(shape, weights, hidden, residual, cos, sin):
    """Pre-norm layer as engines write it: the residual stream is carried beside what was computed last."""
    residual = hidden if residual is None else hidden + residual
    x = F.rms_norm(residual, (shape.hidden,), weights["input_layernorm"], shape.eps)
    batch, tokens, _ = x.shape
    qkv = F.linear(x, weights["qkv"])
    q_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    q, k, v = qkv.split([q_width, kv_width, kv_width], dim=-1)
    q = q.view(batch, tokens, shape.heads, shape.head_dim)
    k = k.view(batch, tokens, shape.kv_heads, shape.head_dim)
    v = v.view(batch, tokens, shape.kv_heads, shape.head_dim).transpose(1, 2)
    if shape.qk_norm:
        q = F.rms_norm(q, (shape.head_dim,), weights["self_attn.q_norm"], shape.eps)
        k = F.rms_norm(k, (shape.head_dim,), weights["self_attn.k_norm"], shape.eps)
    q, k = turned(q.transpose(1, 2), cos, sin), turned(k.transpose(1, 2), cos, sin)
    x = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    hidden = F.linear(x.transpose(1, 2).reshape(batch, tokens, q_width), weights["self_attn.o_proj"])
    residual = hidden + residual
    x = F.rms_norm(residual, (shape.hidden,), weights["post_attention_layernorm"], shape.eps)
    gate, up = F.linear(x, weights["gate_up"]).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, weights["mlp.down_proj"]), residual


def forward_reflected(shape, weights, v, hidden, residual, cos, sin):
    hidden, residual = forward_layer(shape, weights, hidden, residual, cos, sin)
    return reflected(hidden, v), reflected(residual, v)


class Layer(torch.nn.Module):
    def __init__(self, shape, weights):
        super().__init__()
        self.shape, self.weights = shape, weights

    def forward(self, *streams):
        return forward_layer(self.shape, self.weights, *streams)


def tensors(shape):
    """Names and shapes in the order of the recipes; joined ones are made of several."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = {
        "input_layernorm": (shape.hidden,),
        "self_attn.q_proj": (q, shape.hidden),
        "self_attn.k_proj": (kv, shape.hidden),
        "self_attn.v_proj": (kv, shape.hidden),
        "self_attn.o_proj": (shape.hidden, q),
        "post_attention_layernorm": (shape.hidden,),
        "mlp.gate_proj": (shape.inner, shape.hidden),
        "mlp.up_proj": (shape.inner, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.inner),
    }
    if shape.qk_norm:
        layer["self_attn.q_norm"] = layer["self_attn.k_norm"] = (shape.head_dim,)
    return layer


class Model:
    """`tensor(name, shape)` gives weights; what is multiplied together is joined as engines do."""

    def __init__(self, shape, tensor, mode, device, dtype):
        self.shape, self.device, self.dtype, self.mode = shape, device, dtype, mode
        self.layers = []
        for index in range(shape.layers):
            weights = {name: tensor(f"layers.{index}.{name}", of).to(dtype) for name, of in tensors(shape).items()}
            weights["qkv"] = torch.cat([weights.pop(f"self_attn.{name}_proj") for name in "qkv"])
            weights["gate_up"] = torch.cat([weights.pop("mlp.gate_proj"), weights.pop("mlp.up_proj")])
            self.layers.append(Layer(shape, weights))
        self.norm = tensor("norm", (shape.hidden,)).to(dtype)
        self.forward_reflected, self.normal, self.kept = forward_reflected, normal, None
        if mode == "compiled":
            torch._dynamo.config.cache_size_limit = 64
            self.forward_reflected = torch.compile(forward_reflected, dynamic=False)
            self.normal = torch.compile(normal, dynamic=False)

    def vectors(self, block_hash):
        """One reflection vector a layer: made anew for every forward pass, or kept for the round."""
        if self.mode == "compiled" and self.kept and self.kept[0] == block_hash:
            return self.kept[1]
        made = []
        for index in range(self.shape.layers):
            v = normal(seed(f"{block_hash}_layer_{index}_householder"), self.shape.hidden, self.device)
            made.append((v / v.norm()).to(self.dtype))
        self.kept = (block_hash, made)
        return made

    def angles(self, tokens):
        half = self.shape.head_dim // 2
        powers = torch.arange(half, dtype=torch.float64) * (2.0 / self.shape.head_dim)
        frequencies = (self.shape.theta**-powers).to(torch.float32).to(self.device)
        angles = torch.arange(tokens, dtype=torch.float32, device=self.device).unsqueeze(-1) * frequencies
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def inputs(self, block_hash, key, nonces, tokens, stronger):
        count = tokens * self.shape.hidden
        made = torch.empty(len(nonces), tokens, self.shape.hidden, dtype=self.dtype, device=self.device)
        for row, nonce in enumerate(nonces):
            text = f"{block_hash}_{key}_nonce{nonce}"
            if stronger:
                length = (count + 7) // 8
                words = struct.unpack(">8I", digest(text))
                runs = [(word, min(length, count - k * length)) for k, word in enumerate(words) if k * length < count]
                numbers = torch.cat([self.normal(self.word(word), run, self.device) for word, run in runs])
            else:
                numbers = self.normal(self.word(seed(text)), count, self.device)
            made[row] = numbers.view(tokens, self.shape.hidden).to(self.dtype)
        return made

    def word(self, number):
        """A seed for the generator; a tensor where a number would be compiled in."""
        return torch.tensor(number, dtype=torch.int64, device=self.device) if self.mode == "compiled" else number

    def states(self, block_hash, hidden):
        """Normed states of the last tokens, single precision."""
        cos, sin = self.angles(hidden.shape[1])
        residual = None
        vectors = self.vectors(block_hash)
        if self.mode == "compiled":
            residual = torch.zeros_like(hidden)
            for layer, v in zip(self.layers, vectors):
                hidden, residual = self.forward_reflected(self.shape, layer.weights, v, hidden, residual, cos, sin)
        else:
            hooks = []
            for layer, v in zip(self.layers, vectors):
                hook = lambda _layer, _given, streams, v=v: tuple(reflected(x, v) for x in streams)
                hooks.append(layer.register_forward_hook(hook))
            for layer in self.layers:
                hidden, residual = layer(hidden, residual, cos, sin)
            for hook in hooks:
                hook.remove()
        normed = F.rms_norm(hidden + residual, (self.shape.hidden,), self.norm, self.shape.eps)
        return normed[:, -1].to(torch.float32)

    def artifacts(self, round, nonces):
        block_hash, key, k = round["block_hash"], round["public_key"], round["k_dim"]
        hidden = self.inputs(block_hash, key, nonces, round["seq_len"], round["stronger"])
        x = self.states(block_hash, hidden)
        finite = torch.isfinite(x).all(dim=-1)
        x = x / (x.norm(dim=-1, keepdim=True) + 1e-8)
        picks = column([seed(f"{block_hash}_{key}_nonce_{n}_pick_{k}") for n in nonces], self.device)
        scores = hash32(torch.arange(x.shape[-1], dtype=torch.int64, device=self.device), picks)
        best = torch.topk(scores, k, dim=-1, largest=False, sorted=True).indices
        best = torch.cat([best[:, :-1].sort(dim=-1).values, best[:, -1:]], dim=-1)
        y = x.gather(-1, best)
        for j in range(k - 1):
            turns = [seed(f"{block_hash}_{key}_nonce_{n}_haar_hh_{k}_{j}") for n in nonces]
            v = normal(column(turns, self.device), k, self.device)
            v = v / (v.norm(dim=-1, keepdim=True) + 1e-30)
            y = y - 2 * (y * v).sum(dim=-1, keepdim=True) * v
        y = y / (y.norm(dim=-1, keepdim=True) + 1e-8)
        return y.to(torch.float16).cpu(), finite.cpu()


# --- check: published vectors


def decoded(text):
    raw = base64.b64decode(text)
    return struct.unpack(f"<{len(raw) // 2}e", raw)


def grown(tag, model, device):
    def tensor(name, of):
        numbers = normal(seed(f"{tag}_{model}_{name}"), math.prod(of), device)
        return 1 + numbers / 10 if len(of) == 1 else numbers.view(of) / math.sqrt(of[1])

    return tensor


def compare(vectors, mode, device):
    """How far the dense models of published vectors are from what this computes."""
    with open(vectors, encoding="utf-8") as file:
        cases = [case for case in json.load(file)["cases"] if not case["config"]["moe"]]
    furthest = {"bf16": 0.0, "fp32": 0.0}
    for case in cases:
        shape = Shape(case["config"])
        tensor = grown(case["weights_tag"], case["model"], device)
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            model = Model(shape, tensor, mode, device, dtype)
            for run in case["runs"]:
                round = {key: case[key] for key in ("block_hash", "public_key", "k_dim")}
                round |= {"seq_len": case["config"]["seq_len"], "stronger": run["input_scheme"] != "legacy"}
                with torch.inference_mode():
                    found, finite = model.artifacts(round, case["nonces"])
                for vector, text in zip(found.tolist(), run[f"vector_b64_{name}_model"]):
                    furthest[name] = max(furthest[name], math.dist(vector, decoded(text)))
                if not finite.all():
                    furthest[name] = math.inf
    allowed = ALLOWED[mode]
    right = len(cases) > 0 and all(distance <= allowed[name] for name, distance in furthest.items())
    return {"cases": len(cases), "mode": mode, "furthest": furthest, "allowed": allowed, "right": right}


def check(arguments):
    said = compare(arguments.vectors, arguments.mode, arguments.device)
    print(json.dumps(said))
    sys.exit(0 if said["right"] else 1)


# --- run: batches on demand


class Clock:
    """Milliseconds between two moments of the device; of this process where the device has no events."""

    def __init__(self, device):
        self.events = device.startswith("cuda")
        self.begun = self.now()

    def now(self):
        if not self.events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def passed(self):
        ended = self.now()
        if not self.events:
            return 1000.0 * (ended - self.begun)
        torch.cuda.synchronize()
        return self.begun.elapsed_time(ended)


def random_weights(device, dtype):
    generator = torch.Generator(device=device).manual_seed(1)

    def tensor(_name, of):
        numbers = torch.randn(of, generator=generator, device=device, dtype=torch.float32)
        return (1 + numbers / 10 if len(of) == 1 else numbers / math.sqrt(of[1])).to(dtype)

    return tensor


def serve(arguments):
    if arguments.vectors:
        said = compare(arguments.vectors, arguments.mode, arguments.device)
        if not said["right"]:
            print(json.dumps({"reason": f"the replica computes other vectors than the published ones: {said['furthest']}"}), flush=True)
            sys.exit(3)
    dtype = torch.bfloat16
    shape = Shape(json.loads(arguments.shape))
    model = Model(shape, random_weights(arguments.device, dtype), arguments.mode, arguments.device, dtype)
    round = {"block_hash": "C0DE" * 16, "public_key": "02" * 33, "k_dim": arguments.k_dim}
    round |= {"seq_len": arguments.seq_len, "stronger": False}
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "cpu"
    print(json.dumps({"ready": True, "torch": torch.__version__, "device": name}), flush=True)
    nonce = 0
    for line in sys.stdin:
        milliseconds = []
        for _ in range(json.loads(line)["batches"]):
            clock = Clock(arguments.device)
            with torch.inference_mode():
                model.artifacts(round, list(range(nonce, nonce + arguments.nonces)))
            milliseconds.append(clock.passed())
            nonce += arguments.nonces
        print(json.dumps({"milliseconds": milliseconds}), flush=True)


def main():
    parser = argparse.ArgumentParser(description="The reference's procedure in plain torch")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.set_defaults(command=serve)
    run.add_argument("--vectors")
    run.add_argument("--shape", required=True)
    run.add_argument("--seq-len", type=int, required=True)
    run.add_argument("--k-dim", type=int, default=12)
    run.add_argument("--nonces", type=int, default=32)
    vectors = commands.add_parser("check")
    vectors.set_defaults(command=check)
    vectors.add_argument("vectors")
    for parser_of, device in ((run, "cuda"), (vectors, "cpu")):
        parser_of.add_argument("--mode", choices=("eager", "compiled"), default="eager")
        parser_of.add_argument("--device", default=device)
    arguments = parser.parse_args()
    try:
        arguments.command(arguments)
    except (RuntimeError, AssertionError, OSError) as error:
        print(json.dumps({"reason": f"torch: {str(error).splitlines()[0] if str(error) else type(error).__name__}"}), flush=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
