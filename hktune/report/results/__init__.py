"""What a results directory says, as values: `figures` draws them, and `pages` writes them down."""
