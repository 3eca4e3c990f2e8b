"""Evaluation of a segmentation model.

held_out.py     all held-out cases, on the workers
scoring.py      the actor that predicts, scores and keeps the label maps
label_maps.py   files of the predicted label maps, and the list of them
report.py       from scores and predictions to the report's contents
page.py         the report as one HTML page
choices.py      sections on what was chosen, and by fold
exits.py        Dice against time of early exits
calibration.py  temperatures and reliability diagrams
cases.py        scores and pictures of cases, and where links to them lead
"""
