"""Scoring: templates and their identity, questions, and the grading of answers."""
