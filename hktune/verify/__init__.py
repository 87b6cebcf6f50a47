"""Proof: every element, before anything is timed. May import core, objects, space, template and the other seams."""

from hktune.verify.operands import POISON, Operands, random_operands
from hktune.verify.verify import Mismatch, Proof, compare, verify

__all__ = ["POISON", "Mismatch", "Operands", "Proof", "compare", "random_operands", "verify"]
