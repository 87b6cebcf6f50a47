"""Processes that compile, prove or own a GPU, each of which may die alone. May touch what the tuning rooms do not."""
