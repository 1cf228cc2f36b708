"""The figures that pages show, and who may see them.

audits            the audit, started from a page: one at a time, the last outcome kept
credits           whose credit a response is, in the order of pages
heatmap           whose each token of a response is, and how much of it was taught
snapshot          the figures that pages show, read in the background when somebody looks
view              what of the figures somebody may see: a member its own alone
"""
