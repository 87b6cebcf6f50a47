"""What instructions are and do: decoded, one step of numpy each, cut into blocks. Imports machine."""
