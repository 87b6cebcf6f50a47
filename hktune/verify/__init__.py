"""Proof: no variant is timed before every element of its output was right."""

from hktune.verify.operands import POISON, Operands, random_operands
from hktune.verify.verify import Mismatch, Proof, compare, verify

__all__ = ["POISON", "Mismatch", "Operands", "Proof", "compare", "random_operands", "verify"]
