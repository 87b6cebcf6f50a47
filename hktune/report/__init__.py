"""What a person sees of a run. May import every room but runtime, export, session and commands."""
