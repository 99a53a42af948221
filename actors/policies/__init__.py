"""Policies: networks, action distributions, acting, and parameters as arrays."""
