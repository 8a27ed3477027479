"""Published end-to-end vectors as a table that a ledger's exams can be looked up in."""

from pathlib import Path

import numpy as np

from . import artifact, foreign

FILE = "v2_tiny_models.json"
FIELDS = {"F32": "vector_b64_fp32_model", "BF16": "vector_b64_bf16_model"}


def load(directory):
    """The cases of a vectors directory; raises Unreadable."""
    path = Path(directory) / FILE
    return foreign.load(path, str(path)).field("cases").items()


def find(cases, round_, model):
    """nonce -> published f16 vector, for the case that has the same round and model; else empty."""
    for case in cases:
        same = (
            case.field("block_hash").text() == round_.block_hash
            and case.field("public_key").text() == round_.public_key
            and case.field("model").text() == model.recipe
            and case.field("weights_tag").text() == model.tag
            and case.field("k_dim").natural() == model.k_dim
            and case.field("config").field("seq_len").natural() == model.seq_len
        )
        if same:
            return _vectors(case, "concat_murmur" if round_.stronger_rng else "legacy", FIELDS[model.dtype])
    return {}


def _vectors(case, scheme, field):
    nonces = [item.integer() for item in case.field("nonces").items()]
    for run in case.field("runs").items():
        if run.field("input_scheme").text() == scheme:
            decoded = [artifact.decode(item.text()) for item in run.field(field).items()]
            return {n: np.frombuffer(v, "<f2") for n, v in zip(nonces, decoded, strict=False) if v}
    return {}
