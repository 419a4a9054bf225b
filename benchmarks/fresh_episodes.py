"""Fresh episodes of a trained policy, sampled and greedy, beside random orders and none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jules_jax.agent import network, policy
from jules_jax.agent.policy import Policy
from jules_jax.config import Config
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, reference_policies, unseen


@dataclass(frozen=True)
class Episodes:
    """What every policy did from the same starts: `by_policy[name]` holds `[N]` by metric.

    cluster: `[N]`, see `backtest.Starts`.
    """

    cluster: np.ndarray
    by_policy: dict[str, dict[str, np.ndarray]]

    def mean(self, name: str, metric: str) -> tuple[float, float]:
        """Mean of a metric over a policy's episodes, and its standard error over clusters."""
        return backtest.mean_and_error(self.by_policy[name][metric], self.cluster)


def play(config: Config, params: network.Params, episodes: int) -> Episodes:
    """Plays all policies on the same simulated paths that nothing was trained on."""
    held_out = unseen.hold_out(config, split="test", episodes=episodes)
    env_params = make_params(config, held_out.market)
    greedy, sampled = policy.trained(config.network)
    policies: list[tuple[Policy, Any]] = [(sampled, params), (greedy, params)]
    policies += [(reference_policies.random(), ()), (reference_policies.flat(), ())]
    _, key = unseen.keys(config)
    played = {
        who.name: backtest.run_episodes(who, weights, env_params, held_out.starts, key)
        for who, weights in policies
    }
    return Episodes(held_out.starts.cluster, played)


def table(result: Episodes) -> str:
    """The policies as text, one a line: means per episode, dollars, with standard errors."""
    header = (
        f"{'per episode':<18}{'reward':>18}{'net P&L, $':>20}{'gross, $':>11}{'costs, $':>11}"
        f"{'orders':>9}{'worst drawdown':>16}{'breaches in all':>17}"
    )
    lines = [header, "-" * len(header)]
    for name, metrics in result.by_policy.items():
        reward, reward_error = result.mean(name, "reward")
        net, net_error = result.mean(name, "pnl/net")
        gross = float(metrics["pnl/gross"].mean())
        lines.append(
            f"{name:<18}"
            f"{f'{reward:,.2f} ± {reward_error:.2f}':>18}"
            f"{f'{net:,.2f} ± {net_error:.2f}':>20}"
            f"{gross:>11,.2f}"
            f"{gross - net:>11,.2f}"
            f"{float(metrics['trade/orders'].mean()):>9.2f}"
            f"{100 * float(metrics['max_drawdown'].max()):>14.2f} %"
            f"{float(metrics['risk/hard_breaches'].sum()):>17,.0f}"
        )
    return "\n".join(lines)
