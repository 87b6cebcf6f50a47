"""Proof: every element, before anything is timed. May import core, objects, space, template and the other seams."""

from hktune.verify.proof import Proof, verify
from hktune.verify.reference import Answer, Mismatch, Operands, compare, random_operands

__all__ = ["Answer", "Mismatch", "Operands", "Proof", "compare", "random_operands", "verify"]
