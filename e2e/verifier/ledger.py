"""What a finished demo left behind: ledger.json and the artifact files, as values.

Strict about what the checks need, silent about everything else. Fields that may be missing have
their meaning of absence here and nowhere else.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from . import foreign
from .artifact import decode
from .decoder import ROUNDING, SHAPES

DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?\Z")
KINDS = ("Sprint", "Confirmation", "Challenge")
LARGEST_SEQ_LEN = 1024


@dataclass(frozen=True)
class StatTest:
    """The model's comparison rule (docs/poc-v2.md B4.1)."""

    dist_threshold: float
    p_mismatch: float
    fraud_threshold: float


@dataclass(frozen=True)
class Model:
    """A model of the demo, enough to build its decoder."""

    id: str
    recipe: str
    tag: str
    seq_len: int
    k_dim: int
    dtype: str
    stat: StatTest
    weight_scale: Fraction


@dataclass(frozen=True)
class Commit:
    """A (count, root) that reached the chain."""

    height: int
    model: str
    count: int
    root: bytes


@dataclass(frozen=True)
class Node:
    """One ML node of a host in one exam."""

    node_id: str
    node_num: int
    node_count: int
    node_count_derived: bool
    model: str
    accepted: int
    committed: int
    carried_weight: int
    requests: int


@dataclass
class Artifact:
    """One line of an artifacts file; `vector` is None when its base64 is broken."""

    nonce: int
    node_num: int
    vector: bytes
    height: int
    in_commit: bool
    commit_height: int


@dataclass(frozen=True)
class Vote:
    """A validator's word on a host; positive accepts. `power` None = not in the ledger."""

    validator: str
    value: int
    power: int


@dataclass
class Host:
    """One host in one exam."""

    address: str
    public_key: str
    preserved: list
    nodes: list
    commits: list
    votes: list
    early_count: int
    early_median_ratio_bp: int
    ratio_bp: int
    weight: int
    expected_weight: int
    voting_power: int
    lost_ngonka: int
    artifacts: list = field(default_factory=list)

    def model_of(self):
        """node_num -> model id."""
        return {node.node_num: node.model for node in self.nodes}


@dataclass
class Exam:
    """One Sprint, confirmation or challenge with all its hosts."""

    index: int
    kind: str
    epoch: int
    start_height: int
    trigger_height: int
    seed: str
    photo_height: int
    stronger_rng: bool
    time_norm_bp: int
    total_voting_power: int
    hosts: list


@dataclass(frozen=True)
class Reward:
    """What one address got for one epoch."""

    address: str
    ngonka: int
    claimed_height: int
    weight: int


@dataclass
class Epoch:
    """One settled epoch."""

    index: int
    settled_height: int
    total_ngonka: int
    total_weight: int
    rewards: list


@dataclass
class Ledger:
    """The whole record."""

    seed: int
    vote_threshold_bp: int
    models: dict
    exams: list
    epochs: list


def read(directory):
    """LEDGER_DIR as a Ledger, artifacts included; raises foreign.Unreadable."""
    directory = Path(directory)
    top = foreign.load(directory / "ledger.json", "ledger.json")
    version = top.field("version").integer()
    if version != 1:
        raise top.field("version").wrong(f"is {version}, this verifier reads 1")
    if top.field("physical").text("") == "capacity":
        raise top.field("physical").wrong("artifacts of virtual time are counted: there is nothing to recompute")
    models = {name: _model(name, value) for name, value in top.field("models").members()}
    parameters = top.field("parameters")
    stronger = find(parameters.raw, "poc_stronger_rng_enabled") in (True, "true")
    exams = []
    highest_num = {}
    for value in top.field("exams").items():
        exams.append(_exam(len(exams), value, models, stronger, highest_num))
        for host, raw in zip(exams[-1].hosts, value.field("hosts").items(), strict=True):
            _attach_artifacts(directory, host, raw.field("artifacts_file"))
    threshold = find(parameters.raw, "validation_vote_threshold_bps")
    return Ledger(
        top.field("seed").integer(0),
        foreign.Value("ledger.json", threshold, "parameters.validation_vote_threshold_bps").natural(5000),
        models,
        exams,
        [_epoch(value) for value in top.field("epochs").items()],
    )


def find(raw, name, depth=4):
    """The first member of this name in nested objects: parameters nest differently from release to release."""
    if not isinstance(raw, dict) or depth == 0:
        return None
    if raw.get(name) is not None:
        return raw[name]
    found = (find(value, name, depth - 1) for value in raw.values())
    return next((value for value in found if value is not None), None)


def _model(name, value):
    recipe, dtype = value.field("recipe").text(), value.field("dtype").text().upper()
    if recipe not in SHAPES:
        raise value.field("recipe").wrong(f"{foreign.short(recipe)} is not one of {', '.join(SHAPES)}")
    if dtype not in ROUNDING:
        raise value.field("dtype").wrong(f"{foreign.short(dtype)} is not F32 or BF16")
    seq_len, k_dim = value.field("seq_len").natural(), value.field("k_dim").natural(12)
    if not 1 <= seq_len <= LARGEST_SEQ_LEN:
        raise value.field("seq_len").wrong(f"must be 1..{LARGEST_SEQ_LEN}, is {seq_len}")
    if not 2 <= k_dim <= SHAPES[recipe].hidden:
        raise value.field("k_dim").wrong(f"must be 2..{SHAPES[recipe].hidden}, is {k_dim}")
    stat = _stat_test(value.field("stat_test"), dtype)
    scale = _scale(value.field("weight_scale_factor"))
    return Model(name, recipe, value.field("tag").word(), seq_len, k_dim, dtype, stat, scale)


def _stat_test(value, dtype):
    """B4.1; without a ledger entry the distance is 0.02 for F32 and 0.2 for BF16."""
    if value.raw is None:
        value = foreign.Value(value.file, {}, value.path)
    dist = value.field("dist_threshold").number(0.02 if dtype == "F32" else 0.2)
    p_mismatch, fraud = value.field("p_mismatch").number(0.1), value.field("fraud_threshold").number(0.01)
    if not (0 < dist < 2 and 0 < p_mismatch < 1 and 0 < fraud < 1):
        raise value.wrong("needs 0 < dist_threshold < 2 and probabilities between 0 and 1")
    return StatTest(dist, p_mismatch, fraud)


def _scale(value):
    """The chain writes a decimal or {value, exponent}; absent means 1."""
    if value.raw is None:
        return Fraction(1)
    if isinstance(value.raw, dict):
        exponent = value.field("exponent").integer(0)
        if not -30 <= exponent <= 30:
            raise value.wrong("exponent out of range")
        return Fraction(value.field("value").natural()) * Fraction(10) ** exponent
    if isinstance(value.raw, bool) or not DECIMAL.match(str(value.raw)):
        raise value.wrong(f"must be a plain decimal number, is {foreign.short(value.raw)}")
    return Fraction(str(value.raw))


def _exam(index, value, models, stronger, highest_num):
    kind = value.field("kind").text()
    if kind not in KINDS:
        raise value.field("kind").wrong(f"{foreign.short(kind)} is not one of {', '.join(KINDS)}")
    start = value.field("start_height").natural()
    hosts = [_host(host, models, highest_num) for host in value.field("hosts").items()]
    if len({host.address for host in hosts}) != len(hosts):
        raise value.field("hosts").wrong("two hosts have the same address")
    return Exam(
        index=index,
        kind=kind,
        epoch=value.field("epoch").natural(0),
        start_height=start,
        trigger_height=value.field("trigger_height").natural(0),
        seed=value.field("seed").text(),
        photo_height=value.field("photo_height").natural(0),
        stronger_rng=value.field("stronger_rng").boolean(stronger),
        time_norm_bp=value.field("time_norm_bp").natural(10000),
        total_voting_power=value.field("total_voting_power").natural(None),
        hosts=hosts,
    )


def _host(value, models, highest_num):
    address = value.field("address").word()
    commits = [_commit(commit, models) for commit in value.field("commits").items()]
    raw_nodes = value.field("nodes").items()
    numbers = [node.field("node_num").natural() for node in raw_nodes]
    if len(set(numbers)) != len(numbers):
        raise value.field("nodes").wrong("two nodes have the same node_num")
    highest_num[address] = max([highest_num.get(address, 0)] + numbers)
    return Host(
        address=address,
        public_key=value.field("public_key").text(),
        preserved=[item.word() for item in value.field("preserved").items()],
        nodes=[_node(node, commits, models, highest_num[address]) for node in raw_nodes],
        commits=commits,
        votes=[_vote(vote) for vote in value.field("votes").items()],
        early_count=value.field("early_count").natural(0),
        early_median_ratio_bp=value.field("early_median_ratio_bp").natural(None),
        ratio_bp=value.field("ratio_bp").integer(10000),
        weight=value.field("weight").integer(),
        expected_weight=value.field("expected_weight").natural(None),
        voting_power=value.field("voting_power").natural(None),
        lost_ngonka=value.field("lost_ngonka").ngonka(0),
    )


def _node(value, commits, models, highest):
    """node_count: the highest node_num ever plus one unless the ledger says (docs/poc-v2.md B1)."""
    committed = {commit.model for commit in commits}
    known = committed if len(committed) == 1 else set(models)
    model = value.field("model").word(next(iter(known)) if len(known) == 1 else None)
    if model not in models:
        what = "missing, and not exactly one model fits" if model is None else f"{foreign.short(model)} is not in models"
        raise value.field("model").wrong(what)
    node_count = value.field("node_count").natural(None)
    if node_count == 0:
        raise value.field("node_count").wrong("must be at least 1")
    return Node(
        node_id=value.field("node_id").word(),
        node_num=value.field("node_num").natural(),
        node_count=node_count or highest + 1,
        node_count_derived=node_count is None,
        model=model,
        accepted=value.field("accepted").natural(),
        committed=value.field("committed").natural(),
        carried_weight=value.field("carried_weight").natural(0),
        requests=len(value.field("requests").items()),
    )


def _commit(value, models):
    model, root = value.field("model").word(), value.field("root").text()
    if model not in models:
        raise value.field("model").wrong(f"{foreign.short(model)} is not in models")
    try:
        digest = bytes.fromhex(root)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(root) != 64:
        raise value.field("root").wrong(f"must be 64 hex digits, is {foreign.short(root)}")
    return Commit(value.field("height").natural(), model, value.field("count").natural(), digest)


def _vote(value):
    return Vote(value.field("validator").word(), value.field("value").integer(), value.field("power").natural(None))


def _epoch(value):
    rewards = [
        Reward(
            row.field("address").word(),
            row.field("ngonka").ngonka(),
            row.field("claimed_height").natural(0),
            row.field("weight").natural(None),
        )
        for row in value.field("rewards").items()
    ]
    return Epoch(
        value.field("index").natural(),
        value.field("settled_height").natural(0),
        value.field("total_ngonka").ngonka(None),
        value.field("total_weight").natural(None),
        rewards,
    )


def _attach_artifacts(directory, host, name_value):
    """Reads a host's artifacts file; only a host that made nothing may go without one."""
    name = name_value.text("")
    if not name:
        if host.commits or any(node.accepted for node in host.nodes):
            raise name_value.wrong("missing, but the host has artifacts")
        return
    path = (directory / name).resolve()
    if directory.resolve() not in path.parents:
        raise name_value.wrong(f"{foreign.short(name)} points outside the ledger's directory")
    host.artifacts = [_artifact(line) for line in foreign.lines(path, name)]


def _artifact(line):
    height = line.field("height").natural()
    return Artifact(
        nonce=line.field("nonce").integer(),
        node_num=line.field("node_num").natural(),
        vector=decode(line.field("vector_b64").text()),
        height=height,
        in_commit=line.field("in_commit").boolean(),
        commit_height=line.field("commit_height").natural(height),
    )
