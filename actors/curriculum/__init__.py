"""The actors' side of the curriculum: where tasks come from, how they are drawn, and how an episode becomes a score.

`settings` is what the run file says of it, `sources` gives tasks, `making` is the program that asks a source and
`workshop` runs it under a deadline; `desk` keeps the drawn tasks of an actor that steps environments, `scoring` judges.

Nothing is imported here: a reader of settings must not pay for Gymnasium.
"""
