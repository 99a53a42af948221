"""The curriculum: a pool of tasks, drawn where the learners make progress, as a fold over facts and decisions on it."""
