#!/usr/bin/env python3
"""The verifier accepts an honest demo and rejects each kind of dishonest one by name."""

import base64
import contextlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "verify_testdata")]

import honest  # noqa: E402
import numpy as np  # noqa: E402
import verify  # noqa: E402
from honest import DENSE, HOSTS, KEYS, MIXED, OURS, SPRINT_SEED  # noqa: E402
from verifier.artifact import decode, encode  # noqa: E402
from verifier.tree import EMPTY, SumTree  # noqa: E402

VECTORS = str(HERE / "verify_testdata" / "vectors")


def run(*arguments):
    """(exit status, standard output, standard error) of the verifier."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = verify.main([str(a) for a in arguments])
    return status, out.getvalue(), err.getvalue()


def flip(text, *indices, bit=0x80):
    """The vector with a bit of some bytes changed; in odd bytes the default turns the sign."""
    raw = bytearray(base64.b64decode(text))
    for index in indices:
        raw[index] ^= bit
    return base64.b64encode(raw).decode()


class Case(unittest.TestCase):
    """Shared: one honest demo, a fresh directory and copy per test."""

    @classmethod
    def setUpClass(cls):
        cls.honest = honest.Demo()

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.demo = self.honest.copy()

    def verify(self, *options):
        return run(self.demo.write(self.directory.name), *options)

    def fails(self, pattern, host=OURS):
        """The only lines that fail are about this host, and one of them names the cause."""
        status, out, _ = self.verify()
        self.assertEqual(status, 1, out)
        self.assertRegex(out, rf"(?m)^  FAIL .*{pattern}")
        failed = [line for line in out.splitlines() if line.startswith("exam") and line.endswith("FAILED")]
        self.assertTrue(failed and all(host in line or "host" not in line for line in failed), out)
        return out

    def unreadable(self, *patterns):
        status, _, err = self.verify()
        self.assertEqual(status, 2, err)
        for pattern in patterns:
            self.assertRegex(err, pattern)


class HonestDemo(Case):
    def test_passes_with_every_kind_of_check_done(self):
        status, out, _ = self.verify("--sample", 10)
        self.assertEqual(status, 0, out)
        self.assertNotIn("FAIL", out)
        line = r"exam 0 Sprint .* host gonka1ours: 12 artifacts, 12 committed, 10 recomputed, worst L2 0\.0000, 3 comm"
        self.assertRegex(out, line)
        self.assertRegex(out.splitlines()[-1], r"^\d+ passed, 0 failed, 2 skipped$")

    def test_compares_nonces_published_beforehand(self):
        status, out, _ = self.verify("--vectors", VECTORS)
        self.assertEqual(status, 0, out)
        self.assertIn("known vectors compared: 1", out)

    def test_writes_findings_as_json(self):
        path = Path(self.directory.name) / "findings.json"
        self.verify("--json", path)
        findings = json.loads(path.read_text())
        row = next(s for s in findings["sections"] if s.get("address") == OURS)
        nodes = [(n["verdict"], n["preserved"], n["recomputed"]) for n in row["nodes"]]
        self.assertEqual(nodes, [("ok", False, 12), ("ok", True, 0)])

    def test_sample_depends_on_the_seed_alone(self):
        from verifier import ledger
        from verifier.recompute import Sampling, sample_of

        record = ledger.read(self.demo.write(self.directory.name))
        host = record.exams[0].hosts[0]
        pick = lambda seed: [a.nonce for a in sample_of(Sampling(8, seed), record.exams[0], host, host.nodes[0], host.artifacts)]  # noqa: E731
        self.assertEqual(pick(1), pick(1))
        self.assertNotEqual(pick(1), pick(2))
        self.assertEqual(pick(1)[:2], [1, 34])

    def test_numbers_as_strings_and_unknown_fields_are_fine(self):
        host = self.demo.host(0, DENSE)
        host["weight"], host["novel"] = str(host["weight"]), {"a": [1]}
        host["nodes"][0]["node_num"] = "1"
        self.demo.rows(0, DENSE)[0]["novel"] = None
        self.assertEqual(self.verify()[0], 0)

    def test_node_count_is_derived_when_the_ledger_lacks_it(self):
        for host in self.demo.ledger["exams"][0]["hosts"]:
            for node in host["nodes"]:
                del node["node_count"]
        self.assertEqual(self.verify()[0], 0)

    def test_an_artifact_may_name_the_commit_that_held_it_first(self):
        row = next(r for r in self.demo.rows(0, DENSE) if r["height"] == 66)
        row["commit_height"] = 70
        out = self.fails("commitment: height 66: count 10, the artifacts up to there give 9", DENSE)
        self.assertNotIn("height 70:", out)


class Mutants(Case):
    def change_vector(self, exam, address, change):
        host = self.demo.host(exam, address)
        row = self.demo.rows(exam, address)[4]
        row["vector_b64"] = change(row["vector_b64"])
        return host, row["nonce"]

    def replace_all(self, address, **how):
        host, rows = self.demo.host(0, address), self.demo.rows(0, address)
        seed, key = how.pop("seed", SPRINT_SEED), how.pop("key", KEYS[address])
        made = self.demo.vectors(HOSTS[address], seed, key, [r["nonce"] for r in rows], **how)
        for row, vector in zip(rows, made, strict=True):
            row["vector_b64"] = vector
        self.demo.settle(host)

    def test_a_flipped_byte_breaks_distance_and_roots(self):
        _, nonce = self.change_vector(0, OURS, lambda v: flip(v, 1))
        out = self.fails(rf"recompute: node gonka1ours-1: nonce {nonce} by L2 \d\.\d+ beyond")
        self.assertRegex(out, "FAIL commitment: height 66: root [0-9a-f]{64}, the artifacts up to there give [0-9a-f]{64}")

    def test_a_flipped_byte_is_seen_when_the_commitment_fits_it(self):
        for address in HOSTS:
            with self.subTest(address):
                self.demo = self.honest.copy()
                host, nonce = self.change_vector(1, address, lambda v: flip(v, 1, 9, 17, 23))
                self.demo.settle(host)
                out = self.fails(rf"recompute: .*nonce {nonce} by L2", address)
                self.assertNotIn("FAIL commitment", out)

    def test_a_low_bit_is_seen_by_the_root(self):
        self.change_vector(0, MIXED, lambda v: flip(v, 0, bit=1))
        self.assertNotIn("FAIL recompute", self.fails("commitment: height 66: root", MIXED))

    def test_a_wrong_root(self):
        commit = self.demo.host(1, DENSE)["commits"][1]
        commit["root"] = commit["root"][:-1] + ("0" if commit["root"][-1] != "0" else "1")
        self.fails("commitment: height 70: root", DENSE)

    def test_a_count_off_by_one(self):
        self.demo.host(0, DENSE)["commits"][1]["count"] += 1
        self.fails("commitment: height 70: count 19, the artifacts up to there give 18", DENSE)

    def test_commits_out_of_order(self):
        self.demo.host(0, DENSE)["commits"].reverse()
        self.fails("commitment: commit at height 70 listed after one at height 73", DENSE)

    def test_a_nonce_of_another_partition(self):
        host, row = self.demo.host(0, DENSE), self.demo.rows(0, DENSE)[3]
        row["nonce"] = 300
        row["vector_b64"] = self.demo.vectors(HOSTS[DENSE], SPRINT_SEED, KEYS[DENSE], [300])[0]
        self.demo.settle(host)
        out = self.fails("enumeration: node gonka1dense-1: nonce 300 outside the partition of node_num 1 of node_count 3", DENSE)
        self.assertNotIn("FAIL recompute", out)

    def test_a_duplicate_nonce(self):
        rows = self.demo.rows(0, DENSE)
        rows.append(dict(rows[4]))
        self.fails(f"duplicates: nonce {rows[4]['nonce']} more than once", DENSE)

    def test_a_nonce_that_is_no_int32(self):
        self.demo.rows(0, DENSE)[0]["nonce"] = 2**31 + 2
        self.fails("nonce range: nonce 2147483650", DENSE)

    def test_a_nonce_far_up(self):
        row = self.demo.rows(0, DENSE)[0]
        row["nonce"] = 1 + 3 * 5000
        row["vector_b64"] = self.demo.vectors(HOSTS[DENSE], SPRINT_SEED, KEYS[DENSE], [15001])[0]
        self.demo.settle(self.demo.host(0, DENSE))
        self.fails("porosity: nonce 15001 is not below 100 x 24", DENSE)

    def test_hooks_off(self):
        for address in HOSTS:
            with self.subTest(address):
                self.demo = self.honest.copy()
                self.replace_all(address, hooks=False)
                self.fails("recompute: .*they are what the layer reflections off would give", address)

    def test_vectors_of_the_hash_in_the_other_case(self):
        self.replace_all(OURS, seed=SPRINT_SEED.lower())
        self.fails("recompute: .*they are what the block hash in the other case would give")

    def test_picks_in_order_of_score(self):
        self.replace_all(DENSE, order=lambda by_score: by_score)
        self.fails("recompute: .*they are what picks in order of score would give", DENSE)

    def test_many_small_differences_are_judged_by_the_statistical_test(self):
        self.demo.ledger["models"][HOSTS[OURS]]["stat_test"]["dist_threshold"] = 0.02
        host, rows = self.demo.host(0, OURS), self.demo.rows(0, OURS)
        for row in rows:
            vector = np.frombuffer(decode(row["vector_b64"]), "<f2").copy()
            vector[0] += np.float16(0.05)
            row["vector_b64"] = encode(vector)
        self.demo.settle(host)
        self.fails("recompute: node gonka1ours-1: 12 of 12 sampled beyond 0.02, p ")
        rows[1:] = self.honest.rows(0, OURS)[1:]
        self.demo.settle(host)
        self.assertEqual(self.verify()[0], 0)

    def test_the_other_input_generator(self):
        self.replace_all(DENSE, stronger_rng=True)
        self.fails("recompute: .*they are what the other input generator would give", DENSE)

    def test_vectors_of_another_host(self):
        self.replace_all(DENSE, key=KEYS[MIXED])
        self.fails("recompute: node gonka1dense-1: nonce", DENSE)

    def test_a_seed_in_the_wrong_case(self):
        exam = self.demo.ledger["exams"][0]
        exam["seed"] = exam["seed"].lower()
        _, out, _ = self.verify()
        self.assertRegex(out, "FAIL hash case: a Sprint's seed must be upper-case hex, is c0de")
        exam = self.demo.ledger["exams"][1]
        exam["seed"] = exam["seed"].upper()
        self.assertRegex(self.verify()[1], "FAIL hash case: a confirmation's seed must be lower-case hex, is 7B15")

    def test_a_key_in_upper_case(self):
        self.demo.host(0, DENSE)["public_key"] = KEYS[DENSE].upper()
        self.fails("public key", DENSE)

    def test_an_artifact_of_a_preserved_node(self):
        rows = self.demo.rows(0, OURS)
        vector = self.demo.vectors(HOSTS[OURS], SPRINT_SEED, KEYS[OURS], [2])[0]
        rows.append({"nonce": 2, "node_num": 2, "vector_b64": vector, "height": 64, "in_commit": True})
        self.demo.settle(self.demo.host(0, OURS))
        out = self.fails("preserved: node gonka1ours-2 is preserved but has 1 artifacts")
        self.assertNotIn("FAIL recompute", out)

    def test_an_artifact_of_an_unknown_node(self):
        self.demo.rows(0, DENSE)[0]["node_num"] = 9
        self.fails("node numbers: artifacts of node_num 9", DENSE)

    def test_vectors_that_are_malformed(self):
        for vector, text in (("AAAA", "3 bytes, not 24"), ("AH4A" * 8, "not finite"), ("?", "not base64")):
            with self.subTest(text):
                self.demo = self.honest.copy()
                self.demo.rows(0, DENSE)[0]["vector_b64"] = vector
                self.fails(f"vectors: malformed: nonce 1 .*{text}", DENSE)

    def test_artifacts_before_the_seed_was_known(self):
        self.demo.rows(0, DENSE)[0]["height"] = 60
        self.fails("heights: nonce 1 before height 61", DENSE)

    def test_artifacts_said_to_be_committed_that_came_too_late(self):
        row = self.demo.rows(0, DENSE)[0]
        row["height"] = 74
        self.fails("last commitment: nonce 1 marked in_commit came after the last commit", DENSE)

    def test_commits_that_vanished(self):
        self.demo.host(0, DENSE)["commits"] = []
        self.fails("last commitment: 24 artifacts", DENSE)

    def test_counts_per_node(self):
        self.demo.host(0, DENSE)["nodes"][0]["accepted"] += 1
        self.fails("node counts: node gonka1dense-1: accepted 13, the file has 12", DENSE)

    def test_the_early_count(self):
        self.demo.host(0, DENSE)["early_count"] = 24
        self.fails("early share: early_count 24, the commits up to height 67 give 10", DENSE)

    def test_the_early_ratio(self):
        self.demo.host(0, DENSE)["early_median_ratio_bp"] = 9000
        self.fails("early ratio: early_median_ratio_bp 9000, the commits give 10000", DENSE)

    def test_an_inflated_weight(self):
        self.demo.host(1, DENSE)["weight"] += 1
        self.fails("weight: weight 25, but commits and preserved nodes allow at most 24", DENSE)

    def test_a_deflated_weight(self):
        self.demo.host(1, DENSE)["weight"] -= 1
        self.fails("weight: weight 23, commits, preserved nodes and ratio give 24", DENSE)

    def test_a_weight_against_the_votes(self):
        for vote in self.demo.host(1, OURS)["votes"]:
            vote["value"] = -1
        self.fails("weight: weight 19 of a host voted invalid")

    def test_a_ratio_of_a_confirmation(self):
        host = self.demo.host(1, DENSE)
        host["expected_weight"] = 48
        self.fails("ratio: ratio_bp 10000, weight 24 of 48 gives 5500", DENSE)

    def test_a_known_vector_replaced(self):
        self.demo.rows(0, OURS)[0]["vector_b64"] = self.demo.rows(0, OURS)[1]["vector_b64"]
        self.demo.settle(self.demo.host(0, OURS))
        _, out, _ = self.verify("--vectors", VECTORS)
        self.assertRegex(out, r"FAIL known vector: nonce 1 differs from the published vector by L2 [01]\.\d+")

    def test_rewards(self):
        epoch = self.demo.ledger["epochs"][0]
        row = epoch["rewards"][1]
        row["ngonka"] = str(int(row["ngonka"]) - 1)
        self.assertRegex(self.verify()[1], r"FAIL rewards: gonka1dense got \d+, is due \d+")
        row["ngonka"] = str(int(epoch["total_ngonka"]) + 1)
        self.assertRegex(self.verify()[1], r"FAIL rewards: \d+ ngonka paid, the epoch has 323000000000000")
        row["weight"] += 5
        row["ngonka"] = "0"
        self.assertRegex(self.verify()[1], "FAIL rewards: gonka1dense rewarded for more weight")
        row["claimed_height"] = 100
        self.assertRegex(self.verify()[1], "FAIL claims: gonka1dense claimed before")

    def test_an_empty_ledger(self):
        self.demo.ledger["exams"] = []
        status, out, _ = self.verify()
        self.assertEqual(status, 1)
        self.assertIn("FAIL exams: the ledger has no exams", out)


class Unreadable(Case):
    def test_names_the_field(self):
        del self.demo.ledger["exams"][1]["hosts"][2]["public_key"]
        self.unreadable(r"ledger\.json: exams\[1\]\.hosts\[2\]\.public_key: missing")

    def test_refuses_names_that_could_forge_output(self):
        self.demo.host(0, OURS)["address"] = "x\n9 passed, 0 failed, 0 skipped"
        self.unreadable(r"hosts\[0\]\.address: must be 1 to 200 printable characters")

    def test_refuses_sizes_that_would_take_forever(self):
        self.demo.ledger["models"][HOSTS[OURS]]["seq_len"] = 10**6
        self.unreadable(r"seq_len: must be 1\.\.1024, is 1000000")
        self.demo = self.honest.copy()
        self.demo.ledger["models"][HOSTS[OURS]]["weight_scale_factor"] = "1e999999999"
        self.unreadable("weight_scale_factor: must be a plain decimal number")

    def test_names_wrong_types(self):
        self.demo.ledger["exams"][0]["hosts"][0]["commits"][0]["root"] = "zz"
        self.unreadable(r"commits\[0\]\.root: must be 64 hex digits")
        self.demo = self.honest.copy()
        self.demo.ledger["epochs"][0]["rewards"][0]["ngonka"] = 5
        self.unreadable(r"epochs\[0\]\.rewards\[0\]\.ngonka: must be a decimal string")

    def test_says_that_counted_artifacts_cannot_be_recomputed(self):
        self.demo.ledger["physical"] = "delivered"
        self.assertEqual(self.verify()[0], 0)
        self.demo.ledger["physical"] = "capacity"
        self.unreadable("physical: artifacts of virtual time are counted")

    def test_names_the_line_of_an_artifacts_file(self):
        del self.demo.rows(1, MIXED)[3]["in_commit"]
        self.unreadable(r"exam-1/gonka1mixed\.jsonl: line 4\.in_commit: missing")

    def test_does_not_leave_the_directory(self):
        self.demo.host(0, OURS)["artifacts_file"] = "../../etc/passwd"
        self.unreadable("points outside the ledger's directory")

    def test_names_missing_and_broken_files(self):
        self.demo.host(0, OURS)["artifacts_file"] = "exam-0/none.jsonl"
        self.unreadable(r"exam-0/none\.jsonl: No such file")
        status, _, err = run(Path(self.directory.name) / "nowhere")
        self.assertEqual((status, "ledger.json: No such file" in err), (2, True))
        (Path(self.directory.name) / "ledger.json").write_text('{"version": 1,')
        status, _, err = run(self.directory.name)
        self.assertEqual((status, "ledger.json: is not JSON" in err), (2, True))


class Tree(unittest.TestCase):
    def test_gives_the_roots_that_the_network_gave(self):
        record = json.loads((HERE / "verify_testdata" / "recorded_roots.json").read_text())
        tree, done = SumTree(), 0
        for root in record["roots"]:
            tree.add((nonce, decode(vector)) for nonce, vector in record["artifacts"][done : root["count"]])
            done = root["count"]
            self.assertEqual(tree.root(), (base64.b64decode(root["root_base64"]), root["count"]))

    def test_grows_past_its_first_depth(self):
        vectors = {5: b"a", 2**24 + 1: b"b", 2**27: b"c"}
        tree = SumTree()
        tree.add([(5, b"a")])
        self.assertEqual(tree.root(), honest.naive_root({5: b"a"}))
        tree.add(list(vectors.items())[1:])
        self.assertEqual(tree.root(), honest.naive_root(vectors, depth=28))

    def test_is_empty_at_first_and_keeps_the_first_of_two(self):
        tree = SumTree()
        self.assertEqual(tree.root(), EMPTY[24])
        tree.add([(1, b"a"), (1, b"b")])
        self.assertEqual(tree.root(), honest.naive_root({1: b"a"}))


class Vectors(unittest.TestCase):
    def test_the_verifier_agrees_with_the_published_vectors(self):
        status, out, _ = run("--vectors", VECTORS)
        self.assertEqual(status, 0, out)
        self.assertRegex(out.splitlines()[-1], r"^1[01]\d\d passed, 0 failed, 3 skipped$")

    def test_a_changed_vector_is_seen(self):
        for name, field, change in (
            ("v2_misc.json", ("nonce_iterator", 0, "first10", 3), lambda v: v + 1),
            ("v2_tiny_models.json", ("cases", 2, "runs", 1, "vector_b64_fp32_model", 0), lambda v: flip(v, 1)),
            ("v2_tiny_models.json", ("cases", 0, "runs", 0, "indices_cuda_order", 0, 0), lambda v: v + 1),
        ):
            with self.subTest(field), tempfile.TemporaryDirectory() as directory:
                value = spot = json.loads((Path(VECTORS) / name).read_text())
                for key in field[:-1]:
                    spot = spot[key]
                spot[field[-1]] = change(spot[field[-1]])
                (Path(directory) / name).write_text(json.dumps(value))
                status, out, _ = run("--vectors", directory)
                self.assertEqual((status, out.count("FAIL ")), (1, 1), out)

    def test_a_directory_without_vectors_proves_nothing(self):
        with tempfile.TemporaryDirectory() as directory:
            self.assertEqual(run("--vectors", directory)[0], 1)
            (Path(directory) / "v2_misc.json").write_text("{}")
            self.assertEqual(run("--vectors", directory)[0], 1)
            (Path(directory) / "v2_misc.json").write_text('{"nonce_iterator": [{"node_id": "x"}]}')
            status, _, err = run("--vectors", directory)
            self.assertEqual((status, "nonce_iterator[0].node_id: must be a whole number" in err), (2, True))


if __name__ == "__main__":
    unittest.main()
