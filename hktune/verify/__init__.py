"""Proof: every element, before anything is timed. May import core, objects, space, template and the other seams."""

from hktune.verify.reference import Answer, Mismatch, Operands, compare, random_operands
from hktune.verify.verify import Proof, verify

__all__ = ["Answer", "Mismatch", "Operands", "Proof", "compare", "random_operands", "verify"]
