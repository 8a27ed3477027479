"""Outcomes of checks, and how they are shown: lines for people, JSON for the demo's table."""

import json
from dataclasses import dataclass, field

PASS, FAIL, SKIP = "pass", "fail", "skip"


@dataclass(frozen=True)
class Outcome:
    """One check: what was looked at, how it went, and for a failure what is wrong."""

    check: str
    result: str
    text: str = ""


def passed(check):
    """The check held."""
    return Outcome(check, PASS)


def failed(check, text):
    """The check did not hold."""
    return Outcome(check, FAIL, text)


def skipped(check, text):
    """The input does not allow to judge."""
    return Outcome(check, SKIP, text)


def judged(check, wrong):
    """Passed when `wrong` is empty, else failed with it."""
    return failed(check, wrong) if wrong else passed(check)


@dataclass
class Section:
    """The outcomes that one line of the output stands for."""

    title: str
    outcomes: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    def failures(self):
        """The texts of failed checks."""
        return [f"{o.check}: {o.text}" for o in self.outcomes if o.result == FAIL]

    def lines(self):
        """The section as text: one line, then one per failure and skip."""
        yield f"{self.title}: {'FAILED' if self.failures() else 'ok'}"
        for outcome in self.outcomes:
            if outcome.result != PASS:
                yield f"  {outcome.result.upper()} {outcome.check}: {outcome.text}"


def totals(sections):
    """(passed, failed, skipped) over all sections."""
    results = [outcome.result for section in sections for outcome in section.outcomes]
    return results.count(PASS), results.count(FAIL), results.count(SKIP)


def summary(sections):
    """The last line of every run."""
    return "{} passed, {} failed, {} skipped".format(*totals(sections))


def write_json(path, sections):
    """The machine-readable twin of the text."""
    good, bad, open_ = totals(sections)
    rows = [
        {
            "title": section.title,
            "verdict": "failed" if section.failures() else "ok",
            **section.facts,
            "outcomes": [vars(outcome) for outcome in section.outcomes if outcome.result != PASS],
        }
        for section in sections
    ]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"passed": good, "failed": bad, "skipped": open_, "sections": rows}, file, indent=1)
        file.write("\n")
