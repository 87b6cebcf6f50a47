"""Proof: no variant is timed before every element of its output was right."""

from hktune.verify.reference import Answer, Mismatch, Operands, compare, random_operands
from hktune.verify.verify import Proof, verify

__all__ = ["Answer", "Mismatch", "Operands", "Proof", "compare", "random_operands", "verify"]
