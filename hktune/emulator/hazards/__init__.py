"""What is certain, apart from the values: waits, barriers, wait states, races. Imports machine and instructions."""
