"""Settlements, computed a second time from the words of the rule alone. Shares nothing with what wrote them.

counting    what a period comes to, counted a second time
dividing    dividing whole numbers, written a second time
document    a settlement computed a second time, as what the books must say
pending     what was not measured, settled a second time, and its standard errors
replay      periods settled again from the receipts, and statements held against them
settle      a period settled a second time, from the words of the rule alone
statements  what a client's statement of a final period must say
terms       a policy as a settlement's document holds it, read a second time
"""
