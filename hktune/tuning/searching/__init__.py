"""The loop over a run's problems: what is asked next, and what is learned of it. Imports no other room of tuning."""
