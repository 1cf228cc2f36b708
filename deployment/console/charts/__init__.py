"""Figures as pictures. Pure: knows no ledger and no page.

heatmap   the heat map of a response: whose each token is, and how much of it was taught
svg       numbers as SVG: bars, columns over time, lines and sparklines
timeline  a trend as the columns of a chart
"""
