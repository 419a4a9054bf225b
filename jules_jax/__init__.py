"""Recurrent PPO trading agents, trained end to end on the device."""
