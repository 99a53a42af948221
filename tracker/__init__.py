"""The tracker: the sole writer of a run. It owns the ledger of facts; everything that it serves is a fold over it."""
