"""Commands that load, build or check models.

attribute     `protoken attribute`: one prompt, its answer, and who taught each token
bundle_table  a bundle's clients and recorded rounds, as `show` and `import` print them
calibration   `protoken evaluate --bundle`: how far what a bundle pays is from Shapley values
consortium    `protoken consortium build | verify | show`
diff          `protoken consortium diff`: what a new round changed of each client's part
evaluate      `protoken evaluate`: the experiments that check attribution
flagged       `protoken trace --responses`: flagged texts in, clients ranked by responsibility out
importing     `protoken consortium import`: what others trained becomes a bundle
publish       `protoken consortium publish | rollback | rounds`: which bundle is served
questions     files of prompts, with or without responses
recompute     `protoken ledger recompute`: a booked response attributed again, and held against its receipt
"""
