"""Learners: one process a policy, one algorithm a file.

Reading order: `algorithm` (the protocol), `ppo` (the example), what it stands on: `fragments`, `batch`, `vtrace`,
`moments`, `adam`; then the shell around any algorithm.
"""
