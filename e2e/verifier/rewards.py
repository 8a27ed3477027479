"""Checks of settled epochs: who got what is what the weights give, as far as the ledger tells."""

from .records import several
from .report import Section, failed, judged, skipped


def check_epoch(epoch, exams):
    """One epoch as a section."""
    total = sum(reward.ngonka for reward in epoch.rewards)
    title = f"epoch {epoch.index} settled at {epoch.settled_height}: {len(epoch.rewards)} rewards, {total} ngonka"
    outcomes = [_addresses(epoch), _claims(epoch)] + _shares(epoch, exams, total)
    return Section(title, outcomes, {"epoch": epoch.index, "ngonka": str(total)})


def _addresses(epoch):
    seen = [reward.address for reward in epoch.rewards]
    twice = sorted({address for address in seen if seen.count(address) > 1})
    return judged("reward rows", f"{several(twice)} more than once" if twice else "")


def _claims(epoch):
    early = [r.address for r in epoch.rewards if r.claimed_height and r.claimed_height <= epoch.settled_height]
    return judged("claims", f"{several(early)} claimed before the settlement" if early else "")


def _weights(epoch, exams):
    """(weight per address, sum of weights, what is wrong with them), or None when not derivable."""
    sprints = [exam for exam in exams if exam.kind == "Sprint" and exam.epoch == epoch.index]
    confirmations = any(exam.kind == "Confirmation" and exam.epoch == epoch.index for exam in exams)
    measured = {host.address: host.weight for host in sprints[0].hosts} if len(sprints) == 1 else None
    stated = {r.address: r.weight for r in epoch.rewards}
    complete = epoch.rewards and None not in stated.values()
    if measured is None:
        return (stated, epoch.total_weight, "") if complete and epoch.total_weight else None
    whole = sum(measured.values())
    if epoch.total_weight not in (None, whole):
        return stated, whole, f"total_weight {epoch.total_weight}, the Sprint gives {whole}"
    if complete:
        more = [a for a, weight in stated.items() if weight > measured.get(a, 0)]
        return stated, whole, f"{several(more)} rewarded for more weight than the Sprint gave" if more else ""
    return None if confirmations else (measured, whole, "")


def _shares(epoch, exams, total):
    if epoch.total_ngonka is None:
        return [skipped("rewards", "the ledger has no total_ngonka of the epoch")]
    if total > epoch.total_ngonka:
        return [failed("rewards", f"{total} ngonka paid, the epoch has {epoch.total_ngonka}")]
    found = _weights(epoch, exams)
    if found is None:
        return [skipped("rewards", "the weights behind the rewards are not in the ledger; only their sum was checked")]
    weights, whole, wrong = found
    if wrong or not whole:
        return [judged("rewards", wrong)]
    due = {r.address: epoch.total_ngonka * weights.get(r.address, 0) // whole for r in epoch.rewards}
    bad = [f"{r.address} got {r.ngonka}, is due {due[r.address]}" for r in epoch.rewards if r.ngonka != due[r.address]]
    return [judged("rewards", several(bad))]
