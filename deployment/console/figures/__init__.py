"""The figures that pages show, and who may see them.

audits            the independent audit, started from the console
credits           whose credit a response is, in the order in which pages show it
reading           the figures that pages show
seen              what of a reading somebody may see: for a member its own client alone
settlement_table  a settlement as a table
"""
