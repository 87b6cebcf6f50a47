"""What other tools wrote, in hktune's own words: shapes and times. May import core and dispatch."""

from hktune.exchange.foreign_file import ForeignFile, read_foreign
from hktune.exchange.foreign_shapes import FoundShapes, read_shapes
from hktune.exchange.product import Product

__all__ = ["ForeignFile", "FoundShapes", "Product", "read_foreign", "read_shapes"]
