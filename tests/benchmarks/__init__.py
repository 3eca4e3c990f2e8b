"""Ours beside the best peer, in one run: ``make bench``. Ratios, medians of several rounds; nothing here is a test."""
