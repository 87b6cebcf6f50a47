"""Words, facts and formats that every room shares. Imports nothing of hktune but itself."""
