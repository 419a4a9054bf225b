"""Calibration: the value of one setting at which trained agents earn what was aimed at.

`knobs` says what can be turned, `search` which values are tried and which is chosen, `trials` what
agents trained at a value do, `report` what is told and written of it.
"""
