"""Independent verifier of a finished demo: PoC v2 written again from docs/poc-v2.md, numpy only.

Nothing here may be taken from the engine's crates: agreement between two separate readings of the
specification is what the verifier's word is worth.
"""
