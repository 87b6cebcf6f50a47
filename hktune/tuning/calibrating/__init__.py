"""`hktune calibrate`: constants of a model of times, fitted to trials that were measured."""
