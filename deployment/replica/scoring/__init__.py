"""Scoring: between the steps of a replica's own decoding, or in processes that do nothing else; and once more, later.

bundle_scorer   responses scored by the bundles that generated them
exchange        a request and its answer as an application kept them
messages        what crosses between replica and scorer
recomputation   a booked response attributed again, and held against what was booked
remote_scoring  scoring that is not done in the worker's thread: tasks go, outcomes come back
scorer          the Ray Serve deployment that scores
scorer_pool     the scorers as a worker knows them: whoever dies loses nothing
scoring_order   which of the responses that wait is scored next
scoring_queue   responses that wait for their score, worked on between steps
"""
