"""Processes that compile, prove or own a GPU. May import core, objects, space, template and all seams."""
