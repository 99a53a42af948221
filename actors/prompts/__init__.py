"""Prompts: a chat client for any OpenAI-compatible endpoint, and the rollout that runs a user's agent with it."""
