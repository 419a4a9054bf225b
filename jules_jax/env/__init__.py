"""Environment: fills, account, safeguards and reward of an intraday trading episode."""
