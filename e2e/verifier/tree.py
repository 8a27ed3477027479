"""The sparse Merkle sum tree of committed artifacts (docs/poc-v2.md B4.3), grown commit by commit."""

import hashlib
import struct

FIRST_DEPTH = 24


def _sha(data):
    return hashlib.sha256(data).digest()


def leaf(nonce, vector):
    """B4.3: (hash, count) of one artifact."""
    return _sha(b"\x00" + struct.pack("<I", nonce) + vector), 1


def inner(left, right):
    """B4.3: (hash, count) of a node; the count is part of what is hashed."""
    count = left[1] + right[1]
    return _sha(b"\x01" + left[0] + right[0] + struct.pack("<I", count)), count


def _empties(depth):
    nodes = [(_sha(b"\x00"), 0)]
    for _ in range(depth):
        nodes.append(inner(nodes[-1], nodes[-1]))
    return nodes


EMPTY = _empties(32)


class SumTree:
    """Level h holds the nodes above 2^h nonces, by nonce >> h; what is absent is empty."""

    def __init__(self):
        self.depth = FIRST_DEPTH
        self.levels = [{} for _ in range(33)]

    def add(self, artifacts):
        """Adds (nonce, vector bytes) pairs; a nonce already in the tree stays as it is."""
        changed = set()
        for nonce, vector in artifacts:
            if nonce not in self.levels[0]:
                self.levels[0][nonce] = leaf(nonce, vector)
                changed.add(nonce)
        before = self.depth
        self.depth = max([before] + [nonce.bit_length() for nonce in changed])
        for h in range(self.depth):
            changed = {key >> 1 for key in changed}
            if h >= before:
                changed.add(0)  # the old root becomes the left child of a taller tree
            below, above = self.levels[h], self.levels[h + 1]
            for key in changed:
                above[key] = inner(below.get(2 * key, EMPTY[h]), below.get(2 * key + 1, EMPTY[h]))

    def root(self):
        """(root hash, number of artifacts)."""
        return self.levels[self.depth].get(0, EMPTY[self.depth])
