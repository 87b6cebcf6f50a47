"""What a kernel runs on: memory, waves and their registers, a launch's state. Imports no other room of emulator."""
