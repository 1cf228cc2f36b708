"""From a period's credit to payouts in whole minor units, by a policy. Pure: knows no SQL, no clock and no float.

account_line         one account's line of a settlement, as it is written down
allocation           who is entitled to which exact part of the pool: caps, commons, fees
balances             what is carried from period to period, each amount in the currency that it belongs to
commons_explanation  the commons' payout, line by line
document             what one period paid, kept back and carried on, and its document
explanation          one client's payout, line by line, each of which follows from lines before it
explanation_lines    the lines of an explanation, and those that every account has: pool, fee, gross
expressions          formulas over named integers: what an explanation shows is what it computes
payout               what one account is paid: debts, holdbacks, holds and the minimum, to payout and balance
pending              what was not measured, settled by what was, and the standard error of that
policy               what a period pays, to whom, and what is kept back
policy_file          a policy as a YAML file, and its schema for editors
rounding             whole minor units whose residues are carried
settle               the rule of settlement, numbered: credit, policy and what is carried in, payouts out
"""
