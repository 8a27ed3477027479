"""The verifier against the published vectors: the proof that it reads the specification rightly.

One section per file. Sections of a file that are absent are not missed, so that later editions with
other blocks, keys and sizes can be read too.
"""

from pathlib import Path

import numpy as np

from . import artifact, foreign, rng, vectors_models
from .decoder import reflect, to_bf16, to_f32, unit_reflection
from .published import NORMAL_ATOL, array, bf16_close, close, exact, identical, near
from .report import Section, failed, judged, skipped


def sections(directory):
    """One section per v2_*.json of the directory."""
    directory = Path(directory)
    if not directory.is_dir():
        raise foreign.Unreadable(str(directory), "", "is not a directory")
    readers = {
        "v2_rng.json": check_rng,
        "v2_tiny_models.json": vectors_models.check_models,
        "v2_misc.json": check_misc,
    }
    found = sorted(path.name for path in directory.glob("*.json"))
    if not set(found) & set(readers):
        yield Section(str(directory), [failed("files", f"none of {', '.join(readers)} is there")])
    for name in found:
        if name in readers:
            outcomes = _outcomes(readers[name], foreign.load(directory / name, name), name)
            yield Section(name, outcomes or [failed("file", "holds nothing that can be checked")])
        else:
            yield Section(name, [skipped("file", "not a file of PoC v2 that this verifier knows")])


def _outcomes(reader, top, name):
    """A reader's outcomes; lists and arrays that do not fit together are the file's fault."""
    try:
        return list(reader(top))
    except (ValueError, IndexError) as error:
        raise foreign.Unreadable(name, "", f"lists or arrays do not fit together ({error})") from error


def check_rng(top):
    """B1, B2, B3: each building block on its own."""
    checks = [_seeds, _murmur, _normals, _inputs, _fullsize, _reflections, _applied, _picks, _rotation, _finish, _ids]
    for index, group in enumerate(top.field("sets").items()):
        for check in checks:
            for outcome in check(group):
                yield type(outcome)(f"set {index} {outcome.check}", outcome.result, outcome.text)
    if top.has("pseudo_ids_frozen_doc_vectors"):
        yield from _frozen_ids(top.field("pseudo_ids_frozen_doc_vectors"))


def _integers(value):
    return [item.integer() for item in value.items()]


def _round(group, seq_len=1, k_dim=12, stronger=False):
    return artifact.Round(group.field("block_hash").text(), group.field("public_key").text(), seq_len, k_dim, stronger)


def _seeds(group):
    for item in group.field("seeds_from_string").items():
        text = item.field("string").text()
        yield exact(f"seed of {text[-24:]!r}", rng.seed_of(text), item.field("seed_u32").natural())


def _murmur(group):
    value = group.field("murmur3_32")
    if value.raw is None:
        return
    for keys, hashes in (("keys", "hash_u32"), ("keys_sparse", "hash_sparse")):
        got = rng.hash32(np.array(_integers(value.field(keys)), np.uint32), value.field("seed_u32").natural())
        yield exact(f"murmur3 {keys}", got, _integers(value.field(hashes)))


def _normals(group):
    """All of these use the seed of the first string of the set."""
    strings = group.field("seeds_from_string").items()
    if not strings:
        return
    seed = strings[0].field("seed_u32").natural()
    if group.has("uniform_f32_n32"):
        yield identical("uniform", rng.uniform(np.uint32(seed), 0, 32)[0], group.field("uniform_f32_n32"))
    for count in (16, 17):
        if group.has(f"normal_f32_n{count}"):
            got = rng.normal(np.uint32(seed), count)
            yield close(f"normal {count}", got, group.field(f"normal_f32_n{count}"), NORMAL_ATOL)
    name = "batched_normal_f32_2x12_seeds_s_and_s_plus_1"
    if group.has(name):
        seeds = np.array([seed, (seed + 1) % 2**32], np.uint32)
        yield close("batched normal", rng.normal(seeds, 12), group.field(name), NORMAL_ATOL)


def _inputs(group):
    for item in group.field("inputs").items():
        nonce = item.field("nonce").natural()
        for scheme in ("legacy", "concat_murmur"):
            for seq_len, dim in ((4, 64), (3, 5)):
                got = artifact.inputs(_round(group, seq_len, stronger=scheme != "legacy"), [nonce], dim)
                name = f"{scheme}_seq{seq_len}_dim{dim}"
                if item.has(f"{name}_f32"):
                    yield close(f"nonce {nonce} {name}", got, item.field(f"{name}_f32"), NORMAL_ATOL)
                if item.has(f"{name}_bf16_bits_u16"):
                    yield bf16_close(f"nonce {nonce} {name} bf16", to_bf16(got), item.field(f"{name}_bf16_bits_u16"))


def _fullsize(group):
    for item in group.field("inputs_fullsize").items():
        scheme, nonce = item.field("scheme").text(), item.field("nonce").natural()
        seq_len, dim = item.field("seq_len").natural(), item.field("dim").natural()
        if seq_len * dim > 1 << 24:
            raise item.wrong("more than 2^24 values")
        got = artifact.inputs(_round(group, seq_len, stronger=scheme != "legacy"), [nonce], dim)[0]
        name = f"{scheme} {seq_len}x{dim}"
        yield close(f"{name}", got, item.field("f32"), NORMAL_ATOL)
        yield bf16_close(f"{name} bf16", to_bf16(got), item.field("bf16_bits_u16"))
        want = [item.field("mean_f64").number(), item.field("std_f64").number()]
        got = got.astype(np.float64)
        yield near(f"{name} mean and deviation", [got.mean(), got.std(ddof=1)], want, NORMAL_ATOL)


def _reflections(group):
    for item in group.field("householder_vectors").items():
        layer, dim = item.field("layer").natural(), item.field("dim").natural()
        got = unit_reflection(group.field("block_hash").text(), layer, dim)
        yield close(f"reflection of layer {layer} dim {dim}", got, item.field("unit_vector_f32"), NORMAL_ATOL)


def _applied(group):
    value = group.field("apply_householder")
    if value.raw is None:
        return
    vector, _ = array(value.field("v_bf16_bits"))
    v = unit_reflection(group.field("block_hash").text(), 0, vector.size)
    x = array(value.field("x_f32"))[0].reshape(-1, vector.size)
    yield close("reflection applied", reflect(x, v, to_f32), value.field("y_f32"), NORMAL_ATOL)
    yield bf16_close("reflection applied in bf16", reflect(to_bf16(x), v, to_bf16), value.field("y_bf16_bits"))


def _picks(group):
    for item in group.field("pick_indices").items():
        nonce, dim, k = (item.field(name).natural() for name in ("nonce", "dim", "k"))
        name, round_ = f"pick nonce {nonce} dim {dim} k {k}", _round(group, k_dim=k)
        by_score = artifact.pick(round_, [nonce], dim, lambda found: found)[0]
        seed = rng.seed_of(f"{round_.block_hash}_{round_.public_key}_nonce_{nonce}_pick_{k}")
        yield exact(f"{name} scores", rng.hash32(by_score, seed), _integers(item.field("scores_u32_by_ascending")))
        yield exact(f"{name} by score", by_score, _integers(item.field("indices_by_ascending_score")))
        network = artifact.pick(round_, [nonce], dim)[0]
        yield exact(f"{name} network order", network, _integers(item.field("indices_cuda_topk_order")))


def _rotation(group):
    value = group.field("haar_rotation")
    if value.raw is None:
        return
    k, nonces = value.field("k").natural(), _integers(group.field("nonces"))
    x = array(value.field("x_f32"))[0].reshape(-1, k)
    got = artifact.rotate(_round(group, k_dim=k), nonces, x)
    yield close("rotation", got, value.field("y_f32"), NORMAL_ATOL)


def _finish(group):
    nonces, block_hash = _integers(group.field("nonces")), group.field("block_hash").text()
    for item in group.field("postprocess_last_hidden_to_artifact").items():
        dim, texts = item.field("dim").natural(), item.field("vector_b64_cuda_order").items()
        picks, units = (array(item.field(name))[0].reshape(len(nonces), -1) for name in ("xk_f32", "yk_f32_unit"))
        for row, (nonce, text) in enumerate(zip(nonces, texts, strict=True)):
            hidden = _roundings(rng.normal(rng.seeds_of([f"{block_hash}_post_test_{nonce}"]), dim)[0])
            got, picked, unit = artifact.finish(_round(group, k_dim=picks.shape[1]), [nonce] * len(hidden), hidden)
            best = int(np.argmin(np.abs(picked - picks[row]).max(axis=1)))
            yield near(f"picked dim {dim} nonce {nonce}", picked[best], picks[row], NORMAL_ATOL)
            yield near(f"rotated dim {dim} nonce {nonce}", unit[best], units[row], NORMAL_ATOL)
            yield _artifact(f"artifact dim {dim} nonce {nonce}", got[best], text)


def _roundings(x):
    """x in bf16, and once more for each element so near to a tie that libm decides its rounding."""
    base, below, above = to_bf16(x), to_bf16(x - np.float32(NORMAL_ATOL)), to_bf16(x + np.float32(NORMAL_ATOL))
    other, rows = np.where(below != base, below, above), [base]
    for i in np.flatnonzero(other != base):
        rows.append(base.copy())
        rows[-1][i] = other[i]
    return np.stack(rows)


def _artifact(name, vector, value):
    """Each value within 2 units of f16, L2 below 1e-3."""
    want = artifact.decode(value.text()) or b""
    far = artifact.distance(want, vector)
    if far >= 1e-3:
        return failed(name, f"L2 {far:.3g}, allowed 1e-3")
    want = np.frombuffer(want, "<f2")
    units = np.abs(want - vector) / np.spacing(np.maximum(np.abs(want), np.float16(2**-14)))
    return judged(name, "" if units.max() <= 2 else f"a value differs by {units.max():.1f} f16 units, allowed 2")


def _ids(group):
    stem = f"{group.field('block_hash').raw}_{group.field('public_key').raw}"
    for item in group.field("pseudo_input_ids").items():
        nonce, vocabulary = item.field("nonce").natural(), item.field("vocab").natural()
        got = rng.pseudo_ids(rng.seed_of(f"{stem}_nonce{nonce}_input_ids"), item.field("seq_len").natural(), vocabulary)
        yield exact(f"token ids nonce {nonce} of {vocabulary}", got, _integers(item.field("ids")))
    if group.has("target_vector_unused_in_production"):
        yield skipped("target vector", "no part of the proof")


def _frozen_ids(value):
    stem = f"{value.field('block_hash').text()}_{value.field('public_key').text()}"
    columns = [value.field(name).items() for name in ("first16", "sum", "min", "max")]
    for nonce, first, *rest in zip(_integers(value.field("nonces")), *columns, strict=True):
        seed = rng.seed_of(f"{stem}_nonce{nonce}_input_ids")
        got = rng.pseudo_ids(seed, value.field("seq_len").natural(), value.field("vocab").natural())
        yield exact(f"documented ids nonce {nonce}", got[:16], _integers(first))
        sums = [int(got.sum(dtype=np.int64)), int(got.min()), int(got.max())]
        yield exact(f"documented ids nonce {nonce} sum, least, largest", sums, [item.integer() for item in rest])


def check_misc(top):
    """B3.4 step 8, B4.1, B1: encoding, statistics, enumeration."""
    for index, item in enumerate(top.field("encode_decode").items()):
        values = np.array([v.number() for v in item.field("f32").items()], np.float32)
        text = artifact.encode(values.astype(np.float16))
        yield exact(f"encoding {index}", text, item.field("vector_b64").text())
        decoded = np.frombuffer(artifact.decode(text), "<f2").astype(np.float64)
        yield exact(f"decoding {index}", decoded, [v.number() for v in item.field("decoded").items()])
    for item in top.field("fraud_test_table").items():
        yield from _fraud(item)
    for item in top.field("critical_counts").items():
        yield from _critical(item)
    for item in top.field("nonce_iterator").items():
        yield _iterator(item)


def _fraud(item):
    k, n, p = item.field("n_mismatch").natural(), item.field("n_total").natural(), item.field("p_mismatch").number()
    got, want = artifact.binomial_tail(k, n, p), item.field("p_value").number()
    good = abs(got - want) <= 1e-9 * want + 1e-300
    yield judged(f"binomial {k} of {n} at {p}", "" if good else f"is {got!r}, published {want!r}")
    for limit in (0.01, 0.05):
        yield exact(f"fraud {k} of {n} at {p}, {limit}", got < limit, item.field(f"fraud_at_{limit}").boolean())


def _critical(item):
    n, p = item.field("n").natural(), item.field("p_mismatch").number()
    for limit in (0.01, 0.05):
        got = next((k for k in range(n + 1) if artifact.binomial_tail(k, n, p) < limit), None)
        yield exact(f"critical count of {n} at {p}, {limit}", got, item.field(f"min_mismatches_for_fraud_at_{limit}").natural())


def _iterator(item):
    node, count, group, groups = (item.field(n).natural() for n in ("node_id", "node_count", "group_id", "n_groups"))
    got = [node + group * count + x * groups * count for x in range(10)]
    return exact(f"nonces of node {node}/{count} group {group}/{groups}", got, _integers(item.field("first10")))
