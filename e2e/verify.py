#!/usr/bin/env python3
"""Verifies a finished demo without trusting anything that made it.

    verify.py LEDGER_DIR [--sample N] [--seed S] [--json FILE] [--vectors DIR]
    verify.py --vectors DIR

The first form recomputes sampled artifacts, all commitments, counts, weights and rewards of the
ledger; with --vectors it also compares artifacts that were published beforehand. The second form
runs the verifier itself against the published vectors. The last line is always
`N passed, N failed, N skipped`; exit 1 on a failure, 2 on input that cannot be read.
"""

import argparse
import sys

sys.dont_write_bytecode = True

from verifier import exams, foreign, known, ledger, report, rewards, vectors  # noqa: E402
from verifier.recompute import Sampling  # noqa: E402


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description="recompute a finished demo from its ledger")
    parser.add_argument("ledger", nargs="?", metavar="LEDGER_DIR", help="directory with ledger.json and artifact files")
    parser.add_argument("--sample", type=int, default=50, metavar="N", help="artifacts per node and exam, 0 = all (default 50)")
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the sample (default: the ledger's)")
    parser.add_argument("--json", metavar="FILE", help="also write the findings as JSON")
    parser.add_argument("--vectors", metavar="DIR", help="directory with the published v2_*.json")
    options = parser.parse_args(arguments)
    if options.ledger is None and options.vectors is None:
        parser.error("LEDGER_DIR or --vectors DIR is needed")
    if options.sample < 0:
        parser.error("--sample must not be negative")
    return options


def ledger_sections(options):
    """Everything there is to say about a ledger."""
    record = ledger.read(options.ledger)
    cases = known.load(options.vectors) if options.vectors else []
    sampling = Sampling(options.sample, record.seed if options.seed is None else options.seed)
    yield from exams.check_not_empty(record)
    for exam in record.exams:
        yield from exams.check_exam(record, exam, sampling, cases)
    for epoch in record.epochs:
        yield rewards.check_epoch(epoch, record.exams)


def main(arguments=None):
    """Runs the checks, prints as it goes, returns the exit status."""
    options, sections = parse(arguments), []
    try:
        for section in ledger_sections(options) if options.ledger else vectors.sections(options.vectors):
            sections.append(section)
            print(*section.lines(), sep="\n", flush=True)
        if options.json:
            report.write_json(options.json, sections)
    except (foreign.Unreadable, OSError) as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 2
    compared = sum(section.facts.get("known_compared", 0) for section in sections)
    if options.ledger and options.vectors:
        print(f"known vectors compared: {compared}")
    print(report.summary(sections))
    return 1 if report.totals(sections)[1] else 0


if __name__ == "__main__":
    sys.exit(main())
