"""Checks of one host's records that need no model: nonces, commitments, counts, weight.

Each function takes values and returns outcomes. Sections cited are of docs/poc-v2.md.
"""

import math
from collections import Counter

import numpy as np

from .report import failed, judged, skipped
from .tree import SumTree

LARGEST_NONCE = 2**31 - 1
POROSITY = 100


def several(items, limit=4):
    """A few items of a list for a message, and how many there are in all."""
    items = list(items)
    shown = ", ".join(str(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)} in all)"


def in_range(artifact):
    """Whether a nonce can exist on the network at all (B1: int32, from zero)."""
    return 0 <= artifact.nonce <= LARGEST_NONCE


def check_seed(exam):
    """B1: the block hash is upper-case hex in a Sprint and lower-case hex in a confirmation."""
    seed, name = exam.seed, "hash case"
    if len(seed) != 64 or any(c not in "0123456789abcdefABCDEF" for c in seed):
        return failed(name, f"seed {seed[:80]!r} is not a block hash of 64 hex digits")
    if exam.kind == "Sprint":
        return judged(name, "" if seed == seed.upper() else f"a Sprint's seed must be upper-case hex, is {seed}")
    if exam.kind == "Confirmation":
        return judged(name, "" if seed == seed.lower() else f"a confirmation's seed must be lower-case hex, is {seed}")
    return skipped(name, "the case of a challenge's seed is not specified")


def check_public_key(host):
    """B1: lower-case hex of a compressed secp256k1 key."""
    key = host.public_key
    good = len(key) == 66 and key[:2] in ("02", "03") and all(c in "0123456789abcdef" for c in key)
    return judged("public key", "" if good else f"{key[:80]!r} is not lower-case hex of a compressed key")


def check_vectors(host, models):
    """B4.1, B4.2: every vector has k finite f16 values."""
    bad, model_of = [], host.model_of()
    for artifact in host.artifacts:
        model = models.get(model_of.get(artifact.node_num))
        if artifact.vector is None:
            bad.append(f"nonce {artifact.nonce} (not base64)")
        elif model and len(artifact.vector) != 2 * model.k_dim:
            bad.append(f"nonce {artifact.nonce} ({len(artifact.vector)} bytes, not {2 * model.k_dim})")
        elif len(artifact.vector) % 2 or not np.all(np.isfinite(np.frombuffer(artifact.vector, "<f2"))):
            bad.append(f"nonce {artifact.nonce} (a value is not finite)")
    return judged("vectors", f"malformed: {several(bad)}" if bad else "")


def check_nodes_known(host):
    """B5.2: the network refuses artifacts of a node number it does not know."""
    known = host.model_of()
    bad = sorted({a.node_num for a in host.artifacts if a.node_num not in known})
    return judged("node numbers", f"artifacts of node_num {several(bad)}, which the ledger does not list" if bad else "")


def check_enumeration(node, artifacts):
    """B1: a node's nonces are node_num, node_num + node_count, and so on."""
    bad = [a.nonce for a in artifacts if a.nonce % node.node_count != node.node_num % node.node_count or a.nonce < node.node_num]
    if not bad:
        return judged("enumeration", "")
    origin = " (derived: highest node_num + 1)" if node.node_count_derived else ""
    rule = f"node_num {node.node_num} of node_count {node.node_count}{origin}"
    return failed("enumeration", f"node {node.node_id}: nonce {several(bad)} outside the partition of {rule}")


def check_range(host):
    """B1: nonces are int32 and start at zero."""
    bad = [a.nonce for a in host.artifacts if not in_range(a)]
    return judged("nonce range", f"nonce {several(bad)} is not in 0..{LARGEST_NONCE}" if bad else "")


def check_duplicates(host):
    """B4.3: a nonce counts once."""
    bad = [nonce for nonce, times in Counter(a.nonce for a in host.artifacts).items() if times > 1]
    return judged("duplicates", f"nonce {several(bad)} more than once" if bad else "")


def check_heights(exam, host):
    """Nothing can be made before the block whose hash is the seed."""
    first = exam.start_height if exam.kind == "Sprint" else exam.trigger_height
    bad = [a.nonce for a in host.artifacts if a.height < first]
    return judged("heights", f"nonce {several(bad)} before height {first}" if bad else "")


def check_preserved(host):
    """A preserved node keeps serving: it is not asked to generate and makes nothing."""
    by_id = {node.node_id: node for node in host.nodes}
    made = Counter(a.node_num for a in host.artifacts)
    outcomes = []
    for node_id in host.preserved:
        node, wrong = by_id.get(node_id), []
        if node is None:
            outcomes.append(failed("preserved", f"node {node_id} is preserved but not among the host's nodes"))
            continue
        if made[node.node_num]:
            wrong.append(f"{made[node.node_num]} artifacts")
        if node.accepted or node.committed:
            wrong.append(f"accepted {node.accepted}, committed {node.committed}")
        if node.requests:
            wrong.append(f"{node.requests} start requests")
        outcomes.append(judged("preserved", f"node {node_id} is preserved but has {several(wrong)}" if wrong else ""))
    return outcomes


def check_counts(node, artifacts):
    """The ledger's counts per node are those of the artifacts file."""
    committed = sum(a.in_commit for a in artifacts)
    wrong = []
    if node.accepted != len(artifacts):
        wrong.append(f"accepted {node.accepted}, the file has {len(artifacts)}")
    if node.committed != committed:
        wrong.append(f"committed {node.committed}, the file has {committed}")
    return judged("node counts", f"node {node.node_id}: {'; '.join(wrong)}" if wrong else "")


def check_commitments(host):
    """B4.3 and B4.2 for each model: every root and count, order, what was left out, porosity."""
    model_of = host.model_of()
    committed = [a for a in host.artifacts if a.in_commit and in_range(a) and a.vector is not None]
    outcomes = []
    for model in sorted({c.model for c in host.commits} | {model_of.get(a.node_num) for a in committed} - {None}):
        mine = sorted((a for a in committed if model_of.get(a.node_num) == model), key=lambda a: a.commit_height)
        commits = [c for c in host.commits if c.model == model]
        outcomes += _roots(commits, mine)
        outcomes.append(_last_commit(commits, mine, model))
        if mine:
            outcomes.append(check_porosity(commits[-1].count if commits else 0, max(a.nonce for a in mine)))
    return outcomes


def _roots(commits, artifacts):
    tree, position, height = SumTree(), 0, -1
    for commit in commits:
        if commit.height < height:
            yield failed("commitment", f"commit at height {commit.height} listed after one at height {height}")
            return
        height, start = commit.height, position
        while position < len(artifacts) and artifacts[position].commit_height <= height:
            position += 1
        tree.add((a.nonce, a.vector) for a in artifacts[start:position])
        root, count = tree.root()
        wrong = []
        if count != commit.count:
            wrong.append(f"count {commit.count}, the artifacts up to there give {count}")
        if root != commit.root:
            wrong.append(f"root {commit.root.hex()}, the artifacts up to there give {root.hex()}")
        yield judged("commitment", f"height {height}: {'; '.join(wrong)}" if wrong else "")


def _last_commit(commits, artifacts, model):
    if not commits:
        return failed("last commitment", f"{len(artifacts)} artifacts of {model} are marked in_commit, but there is no commit")
    late = [a.nonce for a in artifacts if a.commit_height > commits[-1].height]
    return judged("last commitment", f"nonce {several(late)} marked in_commit came after the last commit" if late else "")


def check_porosity(count, largest):
    """B1, B4.2: the largest nonce stays below 100 times the committed count."""
    wrong = f"nonce {largest} is not below {POROSITY} x {count} committed"
    return judged("porosity", wrong if largest >= POROSITY * count else "")


def final_counts(host):
    """model -> count of its last commit."""
    return {commit.model: commit.count for commit in host.commits}


def early_count(exam, host):
    """B4.2: what was committed when the early share was photographed."""
    return sum({c.model: c.count for c in host.commits if c.height <= exam.photo_height}.values())


def check_early(exam, host):
    """B4.2: the photographed count."""
    if not exam.photo_height:
        return skipped("early share", "the exam has no photo_height")
    count = early_count(exam, host)
    wrong = f"early_count {host.early_count}, the commits up to height {exam.photo_height} give {count}"
    return judged("early share", "" if count == host.early_count else wrong)


def check_early_ratio(exam, host):
    """B4.2: own early/final share against the median weighted by voting power, in basis points."""
    if host.early_median_ratio_bp is None:
        return []
    if any(h.voting_power is None for h in exam.hosts):
        return [skipped("early ratio", "the ledger has no voting_power of every host")]
    shares = [(early_count(exam, h), sum(final_counts(h).values()), h.voting_power) for h in exam.hosts]
    shares = sorted((early / final, power) for early, final, power in shares if final and power)
    final = sum(final_counts(host).values())
    if not shares or not final or not weighted_median(shares):
        return [skipped("early ratio", "no share to compare with")]
    ratio = math.floor(early_count(exam, host) / final / weighted_median(shares) * 10000 + 1e-6)
    wrong = f"early_median_ratio_bp {host.early_median_ratio_bp}, the commits give {ratio}"
    return [judged("early ratio", "" if abs(ratio - host.early_median_ratio_bp) <= 1 else wrong)]


def weighted_median(shares):
    """The first share, ascending, at which half of the power is reached."""
    half, seen = sum(power for _, power in shares) / 2, 0
    for share, power in shares:
        seen += power
        if seen >= half:
            return share
    return 0


def verdict(exam, host, threshold_bp):
    """B4.2: True accepted, False rejected, None when the votes in the ledger do not decide."""
    votes = host.votes
    if not votes:
        return None
    if any(vote.power is None for vote in votes):
        signs = {vote.value > 0 for vote in votes}
        return signs.pop() if len(signs) == 1 else None
    total = exam.total_voting_power or sum(vote.power for vote in votes)
    if sum(v.power for v in votes if v.value > 0) * 10000 > threshold_bp * total:
        return True
    if sum(v.power for v in votes if v.value <= 0) * 10000 > threshold_bp * total:
        return False
    return None


def measured_weight(exam, host, models):
    """B4.4: floor of scale x floor of count x time norm, summed over models."""
    counts = final_counts(host).items()
    return sum(math.floor(models[m].weight_scale * (count * exam.time_norm_bp // 10000)) for m, count in counts)


def check_weight(exam, host, models, threshold_bp):
    """B4.4: measured plus carried when accepted, carried at most when not, never more than allowed."""
    carried = sum(node.carried_weight for node in host.nodes if node.node_id in host.preserved)
    base, word = measured_weight(exam, host, models) + carried, verdict(exam, host, threshold_bp)
    if not 0 <= host.ratio_bp <= 10000:
        return failed("weight", f"ratio_bp {host.ratio_bp} is not in 0..10000")
    if not 0 <= host.weight <= base:
        return failed("weight", f"weight {host.weight}, but commits and preserved nodes allow at most {base}")
    if word is None:
        return skipped("weight", "the votes in the ledger do not decide; only the upper bound was checked")
    if not word:
        return judged("weight", f"weight {host.weight} of a host voted invalid" if host.weight > carried else "")
    due = base * host.ratio_bp // 10000 if exam.kind == "Sprint" else base
    return judged("weight", f"weight {host.weight}, commits, preserved nodes and ratio give {due}" if due != host.weight else "")


def check_ratio(exam, host):
    """Confirmation: reading / expected / 0.909, capped at 1, in basis points."""
    if exam.kind == "Sprint" or host.expected_weight is None:
        return []
    if host.expected_weight == 0:
        return [skipped("ratio", "nothing was expected of the host")]
    ratio = min(10000, host.weight * 10000 * 1000 // (host.expected_weight * 909))
    wrong = f"ratio_bp {host.ratio_bp}, weight {host.weight} of {host.expected_weight} gives {ratio}"
    return [judged("ratio", "" if abs(ratio - host.ratio_bp) <= 1 else wrong)]
