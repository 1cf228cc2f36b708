"""Commands that load, build or check models.

attribute   `protoken attribute`: one prompt, its answer, and who taught each token; needs no service
consortium  `protoken consortium build | import | verify | show`
evaluate    `protoken evaluate`: the experiments that check attribution, on any base model and any domains
trace       `protoken trace`: flagged responses in, clients ranked by responsibility out
"""
