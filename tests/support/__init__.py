"""Helpers that tests of several folders share; never imported by the product."""
