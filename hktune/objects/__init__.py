"""Code objects of either vendor: read from their ELF image, described, checked. May import core."""
