"""Ablation: variants of one configuration, several seeds each, trained and evaluated under the same budget.

run.py       every variant and seed as a trial of Ray Tune: the pipeline up to its evaluation
budget.py    number of steps with which all runs end within a time
summary.py   means and intervals per variant, steps until a quality
page.py      report, and the same as a text table
listener.py  progress
"""
