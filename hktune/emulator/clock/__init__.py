"""The time that executed instructions would take: trace, compute unit, memory. Imports machine and instructions."""
