"""A recurrent PPO loop in the style of PureJaxRL, our own rendering, to be compared with for speed.

The style (Lu et al. 2022, "Discovered policy optimisation", and its code): the run is one jitted
scan over updates; a flax LSTM cell under `nn.scan`, reset and input projection inside; every epoch
permutes the lanes and takes a copy of the whole batch, cut into minibatches; `done` merges
termination and the time limit, which is wrong: this loop is about speed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jax import lax

from jules_jax import config
from jules_jax.agent import ppo
from jules_jax.agent.rollout import Environment

Carry = Inputs = tuple[jax.Array, jax.Array]


class ScannedLSTM(nn.Module):
    """An LSTM over time `[T, N, I]`; an episode's first step zeroes its carry inside the scan."""

    hidden_size: int

    @partial(nn.scan, variable_broadcast="params", split_rngs={"params": False})
    @nn.compact
    def __call__(self, carry: Carry, inputs: Inputs) -> tuple[Carry, jax.Array]:
        x, reset = inputs
        carry = jax.tree.map(lambda leaf: jnp.where(reset[:, None], 0.0, leaf), carry)
        return nn.OptimizedLSTMCell(self.hidden_size)(carry, x)


class SharedActorCritic(nn.Module):
    """That code's shape: an embedding, one LSTM for both, and a hidden layer for each head."""

    num_actions: int = 3
    width: int = 128  # of every layer, as there

    @nn.compact
    def __call__(self, carry: Any, inputs: Inputs) -> tuple[Any, jax.Array, jax.Array]:
        obs, first = inputs
        embedding = nn.relu(nn.Dense(self.width)(obs))
        carry, memory = ScannedLSTM(self.width)(carry, (embedding, first))
        actor, critic = (nn.relu(nn.Dense(self.width)(memory)) for _ in range(2))
        return carry, nn.Dense(self.num_actions)(actor), nn.Dense(1)(critic)[..., 0]

    def empty(self, lanes: int) -> Any:
        return (jnp.zeros((lanes, self.width)),) * 2


class SeparateActorCritic(nn.Module):
    """Our shape in flax: a tower each for actor and critic, an LSTM followed by ReLU layers."""

    hidden_size: int
    net_arch: tuple[int, ...]
    num_actions: int = 3

    @nn.compact
    def __call__(self, carry: Any, inputs: Inputs) -> tuple[Any, jax.Array, jax.Array]:
        carries, features = [], []
        for tower in range(2):
            after, x = ScannedLSTM(self.hidden_size)(carry[tower], inputs)
            for width in self.net_arch:
                x = nn.relu(nn.Dense(width)(x))
            carries.append(after)
            features.append(x)
        value = nn.Dense(1)(features[1])[..., 0]
        return tuple(carries), nn.Dense(self.num_actions)(features[0]), value

    def empty(self, lanes: int) -> Any:
        return ((jnp.zeros((lanes, self.hidden_size)),) * 2,) * 2


class Transition(NamedTuple):  # [T, N] each, obs [T, N, O]; done is that of the observation
    done: jax.Array
    action: jax.Array
    value: jax.Array
    reward: jax.Array
    log_prob: jax.Array
    obs: jax.Array


class Runner(NamedTuple):  # what the scan over updates carries
    train: TrainState
    env_state: Any
    obs: jax.Array
    done: jax.Array
    carry: Any
    key: jax.Array


def make_train(
    env: Environment, network: nn.Module, settings: config.Config, num_updates: int
) -> tuple[Callable[..., Runner], Callable[..., tuple[Runner, jax.Array]]]:
    """`init(key, env_params)` and the jitted `train(runner, env_params)` of `num_updates`."""
    lanes = settings.num_envs

    @jax.jit
    def init(key: jax.Array, env_params: Any) -> Runner:
        keys = jax.random.split(key, lanes)
        obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(keys, env_params)
        done = jnp.ones(lanes, bool)
        params = network.init(key, network.empty(lanes), (obs[None], done[None]))
        optimizer = optax.chain(
            optax.clip_by_global_norm(settings.ppo.max_grad_norm),
            optax.adam(settings.ppo.learning_rate, eps=settings.ppo.adam_eps),
        )
        train = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
        return Runner(train, env_state, obs, done, network.empty(lanes), key)

    @partial(jax.jit, donate_argnums=0)
    def train(runner: Runner, env_params: Any) -> tuple[Runner, jax.Array]:
        update = partial(_update, env=env, env_params=env_params, settings=settings)
        return lax.scan(update, runner, None, num_updates)

    return init, train


def _update(
    runner: Runner, _: None, *, env: Environment, env_params: Any, settings: config.Config
) -> tuple[Runner, jax.Array]:
    numbers, apply = settings.ppo, runner.train.apply_fn
    initial = jax.tree.map(lambda leaf: leaf[None], runner.carry)

    def act(runner: Runner, _: None) -> tuple[Runner, Transition]:
        key, key_action, key_step = jax.random.split(runner.key, 3)
        inputs = (runner.obs[None], runner.done[None])
        carry, logits, value = apply(runner.train.params, runner.carry, inputs)
        action = jax.random.categorical(key_action, logits[0]).astype(jnp.int32)
        keys = jax.random.split(key_step, settings.num_envs)
        step = partial(jax.vmap(env.step, in_axes=(0, 0, 0, None)), keys, runner.env_state)
        obs, env_state, reward, terminated, truncated, _ = step(action, env_params)
        log_prob = ppo.log_prob_of(jax.nn.log_softmax(logits[0]), action)
        seen = Transition(runner.done, action, value[0], reward, log_prob, runner.obs)
        return Runner(runner.train, env_state, obs, terminated | truncated, carry, key), seen

    runner, batch = lax.scan(act, runner, None, numbers.n_steps)
    end = (runner.obs[None], runner.done[None])
    last = apply(runner.train.params, runner.carry, end)[2][0]
    advantage = _gae(batch, last, runner.done, numbers)
    data = (initial, batch, advantage, advantage + batch.value)

    def epoch(state: tuple[TrainState, jax.Array], _: None) -> tuple[Any, jax.Array]:
        train, key = state
        key, key_order = jax.random.split(key)
        order = jax.random.permutation(key_order, settings.num_envs)
        minibatches = _cut(jax.tree.map(lambda x: jnp.take(x, order, axis=1), data), numbers)

        def step(train: TrainState, minibatch: Any) -> tuple[TrainState, jax.Array]:
            loss, grads = jax.value_and_grad(_loss)(train.params, apply, minibatch, numbers)
            return train.apply_gradients(grads=grads), loss

        train, losses = lax.scan(step, train, minibatches)
        return (train, key), losses

    (train, key), losses = lax.scan(epoch, (runner.train, runner.key), None, numbers.n_epochs)
    return runner._replace(train=train, key=key), jnp.mean(losses)


def _cut(tree: Any, settings: config.PPO) -> Any:
    """`[T, N, …]` → `[M, T, N / M, …]`, a copy."""
    count = settings.num_minibatches
    return jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(len(x), count, -1, *x.shape[2:]), 0, 1), tree
    )


def _gae(batch: Transition, last: jax.Array, done: jax.Array, settings: config.PPO) -> jax.Array:
    def body(carry: Any, step: Transition) -> tuple[Any, jax.Array]:
        advantage, v_next, done = carry
        delta = step.reward + settings.gamma * v_next * (1.0 - done) - step.value
        advantage = delta + settings.gamma * settings.gae_lambda * (1.0 - done) * advantage
        return (advantage, step.value, step.done), advantage

    start = (jnp.zeros_like(last), last, done)
    return lax.scan(body, start, batch, reverse=True, unroll=16)[1]


def _loss(params: Any, apply: Any, minibatch: Any, settings: config.PPO) -> jax.Array:
    carry, batch, advantage, target = minibatch
    carry = jax.tree.map(lambda leaf: leaf[0], carry)
    _, logits, value = apply(params, carry, (batch.obs, batch.done))
    log_probs = jax.nn.log_softmax(logits)
    ratio = jnp.exp(ppo.log_prob_of(log_probs, batch.action) - batch.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1.0 - settings.clip_range, 1.0 + settings.clip_range)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1).mean()
    value_loss = jnp.square(value - target).mean()
    return policy_loss + settings.vf_coef * value_loss - settings.ent_coef * entropy
