"""Commands that load, build or check models.

attribute   `protoken attribute`: one prompt, its answer, and who taught each token
consortium  `protoken consortium build | import | verify | show`
evaluate    `protoken evaluate`: the experiments that check attribution
publish     `protoken consortium publish | rollback | rounds`: which bundle is served
trace       `protoken trace`: flagged responses in, clients ranked by responsibility out
"""
