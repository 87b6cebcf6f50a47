"""Trials as Optuna's studies, which its dashboard and its plots show: written while a run goes on, and read back."""
