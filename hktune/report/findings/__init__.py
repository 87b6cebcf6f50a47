"""What was found in a kernel: as lines for a person, as JSON, and as SARIF for other tools."""
