"""Evaluation of a text-to-image model.

asking.py     what each image is asked for
plan.py       what is drawn and measured, part by part
parts.py      work of the actors, and what comes back
drawing.py    the actor that draws, reconstructs and takes features
measures.py   features to metrics
distances.py  distances side by side at equal N
neighbours.py training images nearest to generated and held-out ones
units.py      scores and features of single images, by which two models are compared
report.py     from pictures and scores to the report's contents
page.py       the report as one HTML page
"""
