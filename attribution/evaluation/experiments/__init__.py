"""The experiments themselves, a family in each module, and the methods that they compare.

adaptive      E24: a member who trains or submits for credit, defences off and on
adversaries   what each attack submits, and what the aggregator then makes of it
axioms        E8 (scores sum to the gain), E17 (a response is paid as its pieces are)
cost          E21: what attribution costs, as ratios to plain cached generation
culprits      E1 (a shared backdoor), E2 (a trigger for each client), E4 (many clients, few in each round)
domains       E3 (the right domain), E13 (twins): a consortium of ordinary knowledge
earnings      what members of a consortium earn, one that somebody may attack
fairness      E9, E10: how near shares are to exact Shapley shares, of delivered updates and of coalitions trained anew
layer_scores  ProToken's scores at any layer, with and without gradients
mechanics     E5 (gradients on and off), E6 (layers), E7 (parity with a naive replay)
naive_replay  both presets replayed naively on whole models: what parity is measured against
planted       E12 (facts that one to all clients own), E16 (facts of the base model against the federation's own)
precision     E23: responses that gained little, and scores in half precision
robustness    E14 (free riders), E15 (scaling, sybils, copies, counts, logits), defences off and on
"""
