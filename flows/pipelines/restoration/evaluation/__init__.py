"""Evaluation of a restoration model.

scoring   restored images and their scores, beside the baseline
page      the report as one page
report    from scores and images to the report
"""
