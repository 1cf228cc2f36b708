"""A finished generation in, scores and shares by client out. Does not decode, and knows no money.

credit_preset  preset `credit`: derivatives of the log-probability along the line base → global
dense_shift    what whole differences of weights add to a layer's output, streamed from disk
interruptible  long work in pieces, between which the model may serve somebody else
paper_preset   preset `paper`: ProToken's scores, position-local and exact (arXiv 2601.19672)
path           the line base → global, with one coefficient for each client's update
quadrature     the points between base and global model where slopes are taken, and their weights
reading        log-probabilities of a response at any coefficients
saved_bytes    what a forward pass keeps for its backward pass, counted
shares         signed scores to shares: base share, netting, ties, and the case that nobody earned
slopes         the slope of a response's log-probability: a backward pass, block by block
tangents       the slopes of its tokens, all at once: forward-mode derivatives
"""
