"""Grafana's two boards as code, over the catalogue of series; `board_files.documents()` gives what Grafana reads.

board         a board around its panels: range of time, variables, rows on the grid, the JSON document
board_files   which boards there are, and their files
colours       which colours the boards have
contribution  the board *Contribution and payouts*: who earns what, and what would be paid
panels        what a panel looks like: graphs, single figures and tables in one style
queries       PromQL over the catalogue, so that no panel repeats the traps of its series
service       the board *Service and books*: how fast, whether the ledger keeps up, what alarms
"""
