"""The message plane: what may be said, how it travels, and who is alive.

Reading order: `messages` (what), `arrays` and `wire` (how it looks as bytes), the pure rules `credit`, `delivery`,
`liveness`, `catchup` and `transfer`, then the two shells `hub` and `spoke`, which share one thread, the `reactor`.
"""
