"""The experiments themselves, a family in each module, and the methods that they compare.

adversaries   members who want more than they brought
cost          what attribution costs: E21, each figure a ratio to plain cached generation in the same run
culprits      who planted it: E1 (a shared backdoor), E2 (a trigger for each client), E4 (many clients, few in each
              round)
fairness      how near shares are to exact Shapley shares, and what the rule promises
layer_scores  proToken's scores at any layer of the model, with and without gradients, for choosing layers and for
              the ablation
literal       both presets replayed naively on whole models, as slowly as the formulas read
mechanics     what the scores are computed from
natural       a consortium of ordinary knowledge, two clients a domain
planted       planted knowledge: E12 (facts that one to all clients own), E16 (public facts against facts only the
              federation has)
robustness    what attacks earn, with the defences off and on
"""
