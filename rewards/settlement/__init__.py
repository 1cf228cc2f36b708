"""From a period's credit to payouts in whole minor units, by a policy. Pure: knows no SQL, no clock and no float.

allocation   who is entitled to what of a period's pool: credit and a policy in, exact parts out
balances     what is carried from period to period, each amount in the currency that it belongs to
document     a settlement: what one period paid, kept back and carried on, and its document
lines        one account's line of a settlement: from gross to payout, and the balance it carries on
policy       the settlement policy: what a period pays, to whom, and what is kept back
policy_file  the settlement policy as a YAML file, and the schema by which editors help to write one
rounding     exact division of integers, and whole minor units whose roundings never add up against a client
rule         pure: credit of a period, a policy and what is carried in, integer payouts out
"""
