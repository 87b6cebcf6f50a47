"""Orders of waves, and late data: what a right kernel does not depend on. Imports machine, instructions, hazards."""
