"""The tiny decoders against their published runs, layer by layer (docs/poc-v2.md B3)."""

import hashlib

import numpy as np

from . import artifact
from .decoder import Decoder, Shape, unit_reflection
from .published import NORMAL_ATOL, bf16_bits, close, exact, near
from .report import Outcome, failed, judged

F32_L2 = 2e-3
BF16_L2 = 0.02
BF16_MOE_L2 = 0.2


def check_models(top):
    """Every case of the file."""
    for case in top.field("cases").items():
        name = case.field("model").text()
        for outcome in _case(case):
            yield Outcome(f"{name} {outcome.check}", outcome.result, outcome.text)


def _case(case):
    shape = _shape(case.field("config"))
    name, tag = case.field("model").text(), case.field("weights_tag").text()
    decoders = {dtype: Decoder(name, tag, dtype, shape) for dtype in ("F32", "BF16")}
    yield from _weights(case, decoders["F32"])
    for run in case.field("runs").items():
        scheme = run.field("input_scheme").text()
        for outcome in _run(case, run, decoders, scheme != "legacy"):
            yield Outcome(f"{scheme} {outcome.check}", outcome.result, outcome.text)
    for item in case.field("reference_validation").items():
        yield _validation(item)


def _shape(config):
    moe = config.field("moe")
    sizes = {name: config.field(name).natural() for name in ("hidden", "layers", "heads", "kv_heads", "head_dim")}
    if max(sizes.values()) > 4096:
        raise config.wrong("a size is larger than 4096")
    experts = {} if moe.raw is None else {name: moe.field(name).natural() for name in ("experts", "top_k")}
    inter = (config if moe.raw is None else moe).field("inter").natural()
    floats = {name: config.field(name).number() for name in ("eps", "theta")}
    return Shape(**sizes, inter=inter, qk_norm=config.field("qk_norm").boolean(), **experts, **floats)


def _weights(case, decoder):
    """The recipe: first values, and the digest for information where libm agrees."""
    for item in case.field("weights").items():
        name, shape = item.field("name").text(), [n.natural() for n in item.field("shape").items()]
        got = decoder.raw_weight(name, shape).reshape(-1)
        if hashlib.sha256(np.ascontiguousarray(got, "<f4").tobytes()).hexdigest() == item.field("sha256_f32_le").raw:
            yield judged(f"weight {name}", "")
        else:
            yield near(f"weight {name}", got[:4], [v.number() for v in item.field("first4").items()], NORMAL_ATOL)


def _run(case, run, decoders, stronger):
    config = case.field("config")
    round_ = artifact.Round(
        case.field("block_hash").text(),
        case.field("public_key").text(),
        config.field("seq_len").natural(),
        case.field("k_dim").natural(12),
        stronger,
    )
    nonces = [item.natural() for item in case.field("nonces").items()]
    yield from _f32_body(run, decoders["F32"], round_, nonces)
    yield from _vectors(run, decoders, round_, nonces)


def _f32_body(run, decoder, round_, nonces):
    """Inputs, layers, final state, picks and the unit vectors of the f32 run."""
    hidden = decoder.shape.hidden
    given = artifact.inputs(round_, nonces, hidden)
    first = [v.number() for v in run.field("inputs_f32_nonce0_first16").items()]
    yield near("inputs", given[0].reshape(-1)[: len(first)], first, NORMAL_ATOL)
    reflections = [unit_reflection(round_.block_hash, i, hidden) for i in range(decoder.shape.layers)]
    trace = []
    last = decoder.last_hidden(given, reflections, trace)
    for item in run.field("per_layer_last_token_after_reflection_f32").items():
        layer = item.field("layer").natural()
        if layer >= len(trace):
            raise item.field("layer").wrong("there is no such layer")
        for part, got in zip(("hidden", "residual"), trace[layer], strict=False):
            yield close(f"layer {layer} {part}", got, item.field(part), 1e-4 * _rms(got))
    yield close("final state", last, run.field("final_normed_last_hidden_f32"), 1e-4 * _rms(last))
    picks = artifact.pick(round_, nonces, hidden)
    yield exact("picks", picks, [[i.natural() for i in row.items()] for row in run.field("indices_cuda_order").items()])
    _, picked, unit = artifact.finish(round_, nonces, last)
    yield close("picked", picked, run.field("xk_f32"), 1e-4)
    yield close("rotated", unit, run.field("yk_f32"), 1e-3)
    if run.has("router_last_layer_last_token"):
        yield from _router(decoder, trace[-1][2], run.field("router_last_layer_last_token"))


def _rms(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def _router(decoder, normed, value):
    """Which experts the last layer's router chose for the last token, and their shares."""
    shares = decoder.route(normed, decoder.layers[-1])
    rows = value.field("experts").items(), value.field("weights").items()
    for row, (experts, weights) in enumerate(zip(*rows, strict=True)):
        chosen = [item.natural() for item in experts.items()]
        want = np.zeros(decoder.shape.experts)
        for expert, weight in zip(chosen, weights.items(), strict=True):
            want[expert] = weight.number()
        yield near(f"router row {row}", shares[row], want, 1e-4)


def _vectors(run, decoders, round_, nonces):
    """The published vectors: f32, bf16, and the variants that must be told apart."""
    moe = decoders["F32"].shape.experts > 0
    f32 = artifact.compute(decoders["F32"], round_, nonces)
    yield from _distances("f32", f32, run.field("vector_b64_fp32_model"), nonces, F32_L2)
    bf16 = artifact.compute(decoders["BF16"], round_, nonces)
    limit = BF16_MOE_L2 if moe else BF16_L2
    yield from _distances("bf16", bf16, run.field("vector_b64_bf16_model"), nonces, limit)
    if not moe and run.has("final_normed_last_hidden_bf16_model_bits"):
        yield _bf16_state(run, decoders["BF16"], round_, nonces)
    field = run.field("vector_b64_fp32_model_hooks_off")
    off = artifact.compute(decoders["F32"], round_, nonces, hooks=False)
    yield from _distances("hooks off", off, field, nonces, F32_L2)
    for nonce, vector, value in zip(nonces, f32, field.items(), strict=field.raw is not None):
        far = artifact.distance(artifact.decode(value.text()) or b"", vector)
        yield judged(f"hooks seen nonce {nonce}", "" if far > F32_L2 else "no difference between hooks on and off")


def _bf16_state(run, decoder, round_, nonces):
    """Median distance of the final bf16 states; single roundings differ between libraries."""
    reflections = [unit_reflection(round_.block_hash, i, decoder.shape.hidden) for i in range(decoder.shape.layers)]
    last = decoder.last_hidden(artifact.inputs(round_, nonces, decoder.shape.hidden), reflections)
    text = run.field("final_normed_last_hidden_bf16_model_bits").field("hex_le").text("")
    want = np.frombuffer(bytes.fromhex(text), "<u2").astype(np.int64)
    if want.size != last.size:
        return failed("bf16 final state", f"has {last.size} values, published {want.size}")
    off = np.median(np.abs(bf16_bits(last).reshape(-1) - want))
    return judged("bf16 final state", "" if off <= 2 else f"median difference {off} units, allowed 2")


def _distances(kind, got, field, nonces, limit):
    for nonce, vector, value in zip(nonces, got, field.items(), strict=field.raw is not None):
        far = artifact.distance(artifact.decode(value.text()) or b"", vector)
        yield judged(f"{kind} nonce {nonce}", "" if far < limit else f"L2 {far:.4f}, allowed {limit}")


def _validation(item):
    """B4.1 on received vectors, NaN and wrong length included."""
    params, result = item.field("params"), item.field("result")
    received = dict(item.field("received").members())
    computed = {v.field("nonce").natural(): v.field("vector_b64").text() for v in item.field("computed").items()}
    bad = []
    for nonce, text in computed.items():
        vector = np.frombuffer(artifact.decode(text) or b"", "<f2")
        got = artifact.decode(received[str(nonce)].text()) if str(nonce) in received else b""
        if artifact.distance(got or b"", vector) > params.field("dist_threshold").number():
            bad.append(nonce)
    p = artifact.binomial_tail(len(bad), len(computed), params.field("p_mismatch").number())
    got = {"mismatch_nonces": sorted(bad), "n_mismatch": len(bad), "n_total": len(computed)}
    got["fraud_detected"] = p < params.field("fraud_threshold").number()
    want = {name: result.field(name).raw for name in got}
    close_p = abs(p - result.field("p_value").number()) <= 1e-9
    name = f"validation {item.field('desc').text('')!r}"
    return exact(name, got, want) if close_p else failed(name, f"p {p!r}, published {result.field('p_value').raw!r}")
