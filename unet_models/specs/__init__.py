"""Configuration of networks, training and sampling. Light to import: no torch."""
