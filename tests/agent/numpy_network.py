"""The actor-critic again, in NumPy float64: an oracle that shares no code with the package."""

from __future__ import annotations

import jax
import numpy as np


def to_numpy(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm_step(weights, hidden, cell, x, first):
    """One lane: x [I], hidden and cell [H]; gates in the order input, forget, candidate, output."""
    if first:
        hidden, cell = np.zeros_like(hidden), np.zeros_like(cell)
    gates = x @ weights.input_kernel + hidden @ weights.recurrent_kernel + weights.bias
    i, f, g, o = gates.reshape(4, -1)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def tower_step(params, place, hidden, cell, obs, first):
    """One tower (0 actor, 1 critic) of one lane; returns its head's output and its memory."""
    tower = jax.tree.map(lambda leaf: leaf[place], params.towers)
    hidden, cell = lstm_step(tower.lstm, hidden, cell, obs, first)
    x = hidden
    for layer in tower.hidden:
        x = np.maximum(x @ layer.kernel + layer.bias, 0.0)
    head = (params.policy_head, params.value_head)[place]
    return x @ head.kernel + head.bias, hidden, cell
