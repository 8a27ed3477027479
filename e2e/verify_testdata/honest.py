"""A small honest ledger, made for the verifier's tests: three hosts, a Sprint and a confirmation.

Commitments are made with a tree written differently from the verifier's own. Vectors come from the
verifier's decoders, which the published vectors have proven.
"""

import copy
import hashlib
import json
import struct
from pathlib import Path

from verifier import artifact
from verifier.decoder import Decoder

SPRINT_SEED = "C0DEC0DE00112233445566778899AABBCCDDEEFF0123456789ABCDEF01234567"
CONFIRMATION_SEED = "7b1581245152377580070b8db443977b56edda6f47412b61ee80d62cfa293a66"
OURS, DENSE, MIXED = "gonka1ours", "gonka1dense", "gonka1mixed"
MODELS = {
    "gonka-fleet/tiny_qwen3_dense": ("tiny_qwen3_dense", 16, "BF16"),
    "gonka-fleet/tiny_llama_dense": ("tiny_llama_dense", 8, "F32"),
    "gonka-fleet/tiny_qwen3_moe": ("tiny_qwen3_moe", 8, "BF16"),
}
KEYS = {
    OURS: "02feedface00112233445566778899aabbccddeeff00112233445566778899aabb",
    DENSE: "03" + "ab" * 32,
    MIXED: "02" + "cd" * 32,
}
HOSTS = {OURS: "gonka-fleet/tiny_qwen3_dense", DENSE: "gonka-fleet/tiny_llama_dense", MIXED: "gonka-fleet/tiny_qwen3_moe"}
COMMITS = (66, 70, 73)


def sha(data):
    return hashlib.sha256(data).digest()


def naive_root(vectors, depth=24, prefix=0):
    """Root of {nonce: bytes} straight from the definition, top down: (hash, count)."""
    if depth == 0:
        return (sha(b"\x00" + struct.pack("<I", prefix) + vectors[prefix]), 1) if vectors else (sha(b"\x00"), 0)
    if not vectors:
        node = sha(b"\x00")
        for _ in range(depth):
            node = sha(b"\x01" + node + node + bytes(4))
        return node, 0
    bit = 1 << (depth - 1)
    left = naive_root({n: v for n, v in vectors.items() if not n & bit}, depth - 1, prefix)
    right = naive_root({n: v for n, v in vectors.items() if n & bit}, depth - 1, prefix | bit)
    count = left[1] + right[1]
    return sha(b"\x01" + left[0] + right[0] + struct.pack("<I", count)), count


class Demo:
    """A ledger and its artifact files in memory; tests change a copy and write it out."""

    def __init__(self):
        self.files = {}
        self.decoders = {m: Decoder(recipe, "public-tiny-v1", dtype) for m, (recipe, _, dtype) in MODELS.items()}
        sprint = self._exam("Sprint", 61, 0, SPRINT_SEED)
        confirmation = self._exam("Confirmation", 61, 61, CONFIRMATION_SEED)
        self.ledger = {
            "version": 1,
            "seed": 1,
            "chain_id": "gonka-test",
            "parameters": {"poc_params": {"poc_stage_duration": "12"}},
            "models": {m: self._model(*shape) for m, shape in MODELS.items()},
            "exams": [sprint, confirmation],
            "epochs": [self._epoch(sprint)],
            "external_requests": [],
        }

    def copy(self):
        """An independent copy; decoders are shared, they never change."""
        other = copy.copy(self)
        other.ledger, other.files = copy.deepcopy(self.ledger), copy.deepcopy(self.files)
        return other

    def vectors(self, model, seed, key, nonces, **how):
        """Base64 vectors of nonces, honest unless `how` says otherwise."""
        recipe, seq_len, _ = MODELS[model]
        stronger = how.pop("stronger_rng", False)
        round_ = artifact.Round(seed, key, seq_len, 12, stronger)
        return [artifact.encode(v) for v in artifact.compute(self.decoders[model], round_, nonces, **how)]

    @staticmethod
    def _model(recipe, seq_len, dtype):
        stat = {"dist_threshold": 0.02 if dtype == "F32" else 0.2, "p_mismatch": 0.1, "fraud_threshold": 0.01}
        return {"recipe": recipe, "tag": "public-tiny-v1", "seq_len": seq_len, "k_dim": 12, "dtype": dtype, "stat_test": stat}

    def _exam(self, kind, start, trigger, seed):
        name = "exam-0" if kind == "Sprint" else "exam-1"
        hosts = [self._host(address, name, seed) for address in HOSTS]
        return {
            "kind": kind, "epoch": 2, "start_height": start, "trigger_height": trigger, "seed": seed,
            "photo_height": 67, "total_voting_power": 300, "hosts": hosts,
        }  # fmt: skip

    def _host(self, address, directory, seed):
        preserved = [f"{address}-2"] if address == OURS else []
        nodes, rows = [], []
        for num in (1, 2):
            made = [] if f"{address}-{num}" in preserved else self._rows(address, num, seed)
            rows += made
            committed = sum(row["in_commit"] for row in made)
            nodes.append({
                "node_id": f"{address}-{num}", "node_num": num, "node_count": 3, "model": HOSTS[address],
                "requests": [{"t_ms": 3, "status": 200}] if made else [], "first_callback_ms": 900,
                "accepted": len(made), "committed": committed, "carried_weight": 0 if made else 7,
            })  # fmt: skip
        file = f"{directory}/{address}.jsonl"
        self.files[file] = rows
        host = {
            "address": address, "public_key": KEYS[address], "preserved": preserved, "nodes": nodes,
            "voting_power": 100, "votes": [{"validator": v, "value": 30, "power": 100} for v in HOSTS if v != address],
            "ratio_bp": 10000, "lost_ngonka": "0", "artifacts_file": file, "early_median_ratio_bp": 10000,
        }  # fmt: skip
        self.settle(host)
        return host

    def _rows(self, address, num, seed):
        nonces = [num + 3 * x for x in range(12)]
        vectors = self.vectors(HOSTS[address], seed, KEYS[address], nonces)
        return [
            {"nonce": n, "node_num": num, "vector_b64": v, "height": 62 + i, "in_commit": 62 + i <= COMMITS[-1]}
            for i, (n, v) in enumerate(zip(nonces, vectors, strict=True))
        ]

    def settle(self, host):
        """Commits, counts and weight that follow from the host's artifact file."""
        rows = self.files[host["artifacts_file"]]
        host["commits"] = []
        for height in COMMITS:
            chosen = [r for r in rows if r["in_commit"] and r["height"] <= height]
            root, count = naive_root({r["nonce"]: artifact.decode(r["vector_b64"]) for r in chosen})
            host["commits"].append({"height": height, "model": HOSTS[host["address"]], "count": count, "root": root.hex()})
        for node in host["nodes"]:
            mine = [r for r in rows if r["node_num"] == node["node_num"]]
            node["accepted"], node["committed"] = len(mine), sum(r["in_commit"] for r in mine)
        host["early_count"] = host["commits"][0]["count"]
        carried = sum(n["carried_weight"] for n in host["nodes"] if n["node_id"] in host["preserved"])
        host["weight"] = host["commits"][-1]["count"] + carried

    def _epoch(self, sprint):
        whole, total = sum(h["weight"] for h in sprint["hosts"]), 323000 * 10**9
        rewards = [
            {"address": h["address"], "ngonka": str(total * h["weight"] // whole), "weight": h["weight"], "claimed_height": 140}
            for h in sprint["hosts"]
        ]
        return {"index": 2, "settled_height": 134, "total_ngonka": str(total), "total_weight": whole, "rewards": rewards}

    def host(self, exam, address):
        """A host of an exam, to be changed."""
        return next(h for h in self.ledger["exams"][exam]["hosts"] if h["address"] == address)

    def rows(self, exam, address):
        """The artifact lines of a host in an exam, to be changed."""
        return self.files[self.host(exam, address)["artifacts_file"]]

    def write(self, directory):
        """The demo's directory."""
        directory = Path(directory)
        (directory / "ledger.json").write_text(json.dumps(self.ledger))
        for name, rows in self.files.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return directory
