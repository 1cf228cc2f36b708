"""Settlements, computed a second time from the words of the rule alone. Shares nothing with what wrote them.

counting    what a period comes to, counted a second time
dividing    dividing whole numbers, written a second time
document    a settlement computed a second time, as a document
replay      periods, settled a second time from the receipts, and every client's statement held against its line
rule        a period settled a second time, from the words of the rule alone
statements  what a client's statement of a final period must say, from the period's settlement and its events
terms       a policy as a settlement's document holds it, read a second time
"""
