"""Environments: any Gymnasium or PettingZoo one, as columns of arrays over many copies.

`settings` says which environment, `load` makes it, `vector` is what an actor sees, `gym` and `zoo` are the three forms
behind it, `probe` asks an environment for its spaces before a run starts.

Nothing is imported here: a reader of settings must not pay for Gymnasium.
"""
