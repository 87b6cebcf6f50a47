"""What is certain beside the values: waits, barriers, wait states, races. Imports machine and instructions."""
