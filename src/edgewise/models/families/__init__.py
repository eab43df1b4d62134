"""Families of `transformers` models, each a small declaration: `table.py` has them, `family.py` reads them."""
