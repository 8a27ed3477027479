"""All checks of one host in one exam, gathered into the section that its line shows."""

from collections import defaultdict

from . import artifact, known, recompute, records
from .report import Section, failed, judged, skipped

SKIP_KNOWN = "published nonces of this exam are not among the host's artifacts"


def check_exam(ledger, exam, sampling, cases):
    """The exam's own section and one per host."""
    title = f"exam {exam.index} {exam.kind} epoch {exam.epoch} height {exam.start_height}"
    yield Section(title, [records.check_seed(exam)], {"exam": exam.index, "kind": exam.kind, "start_height": exam.start_height})
    for host in exam.hosts:
        yield _check_host(ledger, exam, host, sampling, cases, f"{title} host {host.address}")


def _check_host(ledger, exam, host, sampling, cases, title):
    by_node = defaultdict(list)
    for item in host.artifacts:
        by_node[item.node_num].append(item)
    outcomes = [
        records.check_public_key(host),
        records.check_vectors(host, ledger.models),
        records.check_nodes_known(host),
        records.check_range(host),
        records.check_duplicates(host),
        records.check_heights(exam, host),
    ]
    outcomes += records.check_preserved(host)
    nodes = [_check_node(ledger, exam, host, node, sampling, by_node[node.node_num]) for node in host.nodes]
    outcomes += [outcome for _, found in nodes for outcome in found]
    outcomes += records.check_commitments(host)
    compared, known_outcomes = _check_known(ledger, exam, host, cases)
    outcomes += known_outcomes
    outcomes.append(records.check_early(exam, host))
    outcomes += records.check_early_ratio(exam, host)
    outcomes.append(records.check_weight(exam, host, ledger.models, ledger.vote_threshold_bp))
    outcomes += records.check_ratio(exam, host)
    facts = _facts(exam, host, [row for row, _ in nodes], compared)
    return Section(f"{title}: {_words(facts)}", outcomes, facts)


def _check_node(ledger, exam, host, node, sampling, artifacts):
    model = ledger.models[node.model]
    result = recompute.check_node(sampling, exam, host, node, model, artifacts)
    if not artifacts and not node.accepted:
        result.outcome = skipped("recompute", f"node {node.node_id} made nothing")
    outcomes = [records.check_enumeration(node, artifacts), records.check_counts(node, artifacts), result.outcome]
    bad = any(outcome.result == "fail" for outcome in outcomes)
    row = {
        "node_id": node.node_id,
        "node_num": node.node_num,
        "artifacts": len(artifacts),
        "committed": sum(a.in_commit for a in artifacts),
        "recomputed": result.count,
        "worst_l2": round(result.worst, 6) if result.worst < 1e9 else None,
        "limit": model.stat.dist_threshold,
        "preserved": node.node_id in host.preserved,
        "verdict": "failed" if bad else "ok",
    }
    return row, outcomes


def _facts(exam, host, nodes, compared):
    worst = [row["worst_l2"] for row in nodes]
    return {
        "exam": exam.index,
        "kind": exam.kind,
        "epoch": exam.epoch,
        "start_height": exam.start_height,
        "address": host.address,
        "artifacts": len(host.artifacts),
        "committed": sum(a.in_commit for a in host.artifacts),
        "recomputed": sum(row["recomputed"] for row in nodes),
        "worst_l2": None if None in worst else max(worst, default=0.0),
        "commitments": len(host.commits),
        "known_compared": compared,
        "weight": host.weight,
        "nodes": nodes,
    }


def _words(facts):
    worst = "not finite" if facts["worst_l2"] is None else f"{facts['worst_l2']:.4f}"
    known_part = f", {facts['known_compared']} known vectors" if facts["known_compared"] else ""
    return (
        f"{facts['artifacts']} artifacts, {facts['committed']} committed, {facts['recomputed']} recomputed, "
        f"worst L2 {worst}, {facts['commitments']} commitments{known_part}, weight {facts['weight']}"
    )


def _check_known(ledger, exam, host, cases):
    """Artifacts of an exam that repeats a published vector are compared with what was published."""
    model_of, outcomes, compared, applies = host.model_of(), [], 0, False
    for model_id in sorted(set(model_of.values())):
        model = ledger.models[model_id]
        vectors = known.find(cases, recompute.round_of(exam, host, model), model)
        applies = applies or bool(vectors)
        for item in host.artifacts:
            if item.nonce not in vectors or model_of.get(item.node_num) != model_id or item.vector is None:
                continue
            far = artifact.distance(item.vector, vectors[item.nonce])
            limit = recompute.hard_limit(model)
            wrong = f"nonce {item.nonce} differs from the published vector by L2 {far:.4f}"
            outcomes.append(judged("known vector", wrong if far > limit else ""))
            compared += 1
    if applies and not compared:
        outcomes.append(skipped("known vector", SKIP_KNOWN))
    return compared, outcomes


def check_not_empty(ledger):
    """A ledger without exams proves nothing."""
    return [] if ledger.exams else [Section("ledger", [failed("exams", "the ledger has no exams")])]
