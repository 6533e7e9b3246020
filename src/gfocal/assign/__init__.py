"""Assigners, a part of the family: which locations learn which box."""
