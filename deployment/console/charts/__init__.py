"""Figures as pictures. Pure: knows no ledger and no page.

svg       numbers as SVG: bars, columns over time, lines and sparklines
timeline  a trend as the columns of a chart
"""
