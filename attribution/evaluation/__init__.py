"""Experiments that check attribution on real consortia: how right, how fair, how robust, how dear.

experiments/  the experiments themselves, a family in each module, and the methods that they compare
catalogue     the experiments, by the names that `protoken evaluate` and the files in configs/evaluation use
data          what the consortia of the experiments learn and are asked
experiment    what an experiment is
ground_truth  what coalitions of clients would have said
plots         plots of the report, drawn from data as SVG; the same data gives the same bytes
report        the report of an evaluation, as HTML that needs nothing else and as Markdown
results       what an experiment found, as it is stored and reported
runner        runs experiments from their YAML files
shapley       shapley values of small games, written out over all coalitions
small_models  small base models trained from scratch, for architectures whose real weights are not at hand
statistics    numbers about numbers: intervals, distances between shares, correlations, and the figures made of them
workshop      where experiments work: the base model, the domains, a folder of bundles built once, answers and their
              scores
"""
