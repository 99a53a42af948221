"""Actors: rollouts of environments and of tasks, and the policies that act in them."""
