"""Plotly figures of results, as plain values: a page embeds them, and `plotly.graph_objects.Figure` takes them."""
