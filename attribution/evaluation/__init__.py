"""Experiments that check attribution on real consortia: how right, how fair, how robust, how dear.

experiments/        the experiments themselves, a family in each module, and the methods that they compare
calibration         how right the shares are that a bundle pays, by Shapley values of its own updates
calibration_report  what a calibration found, as everybody may read it
catalogue           the experiments, by the names that `protoken evaluate` and the files in configs/evaluation use
culprits_table      E1 of several models in one table, a cell for each model and domain
data                what consortia learn and are asked: domains, disjoint parts of them, planted knowledge
experiment          what an experiment is: cases that run on their own, and a summary of their rows
figures_page        what experiments found when they were last run whole, as one page
ground_truth        what coalitions of clients would have said, reconstructed or retrained: the slow oracle
harness             the harness of experiments: base model, domains, bundles built once, answers and scores
plots               plots of the report as SVG; the same data gives the same bytes
report              the report as HTML that needs nothing else and as Markdown: targets, what was missed, plots
results             figures with their uncertainty, plots as data, and notes, as they are stored
runner              runs experiments from their YAML files, case by case, resumable
shapley             Shapley values of games, over all coalitions or over sampled orders of joining
small_models        small base models trained from scratch: `scratch:ARCHITECTURE`
statistics          intervals, distances between shares, correlations
transplants         real weights in another architecture's place: `transplant:ARCHITECTURE`
"""
