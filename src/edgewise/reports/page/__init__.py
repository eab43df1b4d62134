"""One self-contained page for a run, or for several runs of one graph."""
