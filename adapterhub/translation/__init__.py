"""Parallel text from the translations that software ships: found, cleaned, split, made rows of."""
