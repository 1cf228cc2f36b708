"""Grafana's two boards as code, over the catalogue of series; `boards.documents()` gives the JSON that Grafana reads.

boards        which boards there are, and the file that each is in
colours       which colours the boards have
contribution  the board *Contribution and payouts*: who earns what, what the open period would pay, and what was
              corrected
frame         a board around its panels
panels        what a panel looks like
queries       promQL over the catalogue
service       the board *Service and books*: how fast it answers, whether the ledger keeps up, and whether anything
              is alarming
"""
