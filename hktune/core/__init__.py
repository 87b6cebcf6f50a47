"""Words, facts and formats that every room shares. May import nothing else of hktune."""
