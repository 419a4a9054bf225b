"""Evaluation: whole episodes of policies, compared and replayed."""
