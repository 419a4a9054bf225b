"""Reports made up for tests: one that has everything, and one that has next to nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jules_jax.evaluation.report import schema

NAMES = {
    "trained, greedy": ("trained", 212.0, 41.0),
    "trained, sampled": ("trained", 174.0, 33.0),
    "oracle": ("oracle", 560.0, 28.0),
    "flat": ("reference", 0.0, 0.0),
    "buy and hold": ("reference", 96.0, 240.0),
    "random, matched turnover": ("reference", -420.0, 35.0),
    "random": ("reference", -2107.5, 48.0),
    "VWAP reversion": ("reference", -36.0, 44.0),
    "EMA cross": ("reference", -188.0, 52.0),
    "TWAP in and out": ("reference", 12.0, 120.0),
    "trained, no memory": ("reference", 95.0, 39.0),
}
SHARES = {"spread": 0.62, "temporary": 0.08, "transient": 0.12, "permanent": 0.02, "fees": 0.15}


def interval(value: float, error: float = math.nan) -> dict[str, float]:
    return {
        "value": value,
        "low": value - 1.96 * error,
        "high": value + 1.96 * error,
        "error": error,
    }


def metrics(net: float, error: float) -> dict[str, dict[str, float]]:
    """Every metric, of an account that nets `net` dollars."""
    trades = net != 0.0
    cost = 0.0 if not trades else 180.0 if net > -200 else 1700.0
    values = {name: interval(math.nan) for name in schema.METRICS}
    if trades:
        sharpe = 1.9 * net / max(error * 4, 1.0)
        values |= {
            **{f"cost_{k}_bp": interval(3.9 * share, 0.02) for k, share in SHARES.items()},
            "cost_borrow_bp": interval(0.01 * 3.9, 0.001),
            "cost_total_bp": interval(3.9, 0.05),
            "daily_return": interval(net / 19 / 50_000, error / 19 / 50_000),
            "volatility": interval(0.031, 0.004),
            "sharpe": interval(sharpe, 0.71),
            "years_needed": interval((1.96 / sharpe) ** 2 if sharpe > 0 else math.nan),
            "psr": interval(0.5 + 0.5 * math.erf(sharpe / 0.71 / math.sqrt(2))),
            "dsr": interval(0.5 + 0.5 * math.erf((sharpe - 1.6) / 0.71 / math.sqrt(2))),
            "sortino": interval(1.4 * sharpe, 1.1),
            "calmar": interval(1.1 * sharpe, 0.9),
            "max_drawdown": interval(0.0123, 0.002),
            "max_drawdown_sessions": interval(7.0),
            "hit_rate": interval(0.547, 0.012),
            "day_hit_rate": interval(0.58, 0.06),
            "profit_factor": interval(1.21, 0.09),
            "turnover": interval(6.4, 0.2),
            "holding_bars": interval(23.4, 0.6),
            "trades_per_session": interval(14.2, 0.3),
            "thrash_rate": interval(0.043, 0.004),
        }
    values |= {
        "reward": interval(net / 40, error / 40),
        "net_pnl": interval(net, error),
        "gross_pnl": interval(net + cost, error),
        "liquidation_pnl": interval(net - (1.2 if trades else 0.0), error),
        "exposure": interval(0.61 if trades else 0.0, 0.01),
        "hard_breaches": interval(0.0, 0.0),
    }
    return values


def policy(name: str, draw: np.random.Generator, days: list[str]) -> dict[str, Any]:
    kind, net, error = NAMES[name]
    bars = np.linspace(0, 390 * len(days), 400)
    spread = error / 50_000 * 2.2 * np.sqrt(bars / bars[-1] + 1e-9)
    noise = np.cumsum(draw.normal(0, max(error, 1e-9) / 50_000 / 12, bars.size))
    mean = net / 50_000 * bars / bars[-1] + noise
    mean = mean - mean[0]
    peak = np.maximum.accumulate(mean)
    daily = draw.normal(net / len(days), max(error, 0.0) / 2, len(days))
    counts, edges = np.histogram(draw.standard_t(5, 400) * 0.002 + net / 1e6, bins=30)
    still = name == "flat"
    buckets = np.arange(0, 390, 30)
    requests = np.where(
        draw.random((len(days), 78)) < 0.2, draw.choice([-1, 1], (len(days), 78)), 0
    )
    return {
        "kind": kind,
        "overall": metrics(net, error),
        "symbols": {"SPY": metrics(0.6 * net, error), "NVDA": metrics(0.4 * net, 1.5 * error)},
        "daily": {
            "labels": days,
            "net": daily,
            "low": daily - error / 4,
            "high": daily + error / 4,
        },
        "equity": {
            "bar": bars,
            "mean": mean,
            "low": mean - spread,
            "high": mean + spread,
            "drawdown": (peak - mean) / (1 + peak),
        },
        "by_minute": {
            "minute": buckets,
            "net": draw.normal(net / 19 / 13, max(error / 19 / 4, 0.0), buckets.size),
            "orders": np.zeros(13) if still else 0.4 + 1.5 * np.exp(-buckets / 90),
        },
        "returns_histogram": {
            "edges": edges,
            "counts": np.zeros_like(counts) if still else counts,
        },
        "reward_terms": dict.fromkeys(schema.REWARD_TERMS, 0.0)
        if still
        else dict(zip(schema.REWARD_TERMS, (0.90, 0.055, 0.03, 0.01, 0.003, 0.002), strict=True)),
        "requests": {"sell": 0.17, "hold": 0.64, "buy": 0.19},
        "raster": {
            "labels": days,
            "minute": np.arange(0, 390, 5),
            "request": requests * (0.3 + 0.7 * draw.random(requests.shape)),
        }
        if name == "trained, greedy"
        else None,
    }


def session(draw: np.random.Generator, symbol: str, label: str) -> dict[str, Any]:
    price = np.round(610 + np.cumsum(draw.normal(0, 0.25, 390)), 2)
    position, fills = np.zeros(390, int), []
    for start in range(12, 380, 31):
        side = int(draw.choice([-1, 1]))
        end = min(start + int(draw.integers(10, 28)), 389)
        position[start:end] = side * 20
        fills.append(fill(start, price[start], side * 20))
        fills.append(fill(end, price[end], -side * 20, forced=end >= 384))
    held = np.concatenate([[0], position[:-1]])
    request = np.sign(np.diff(position, prepend=0))
    net = held * np.diff(price, prepend=price[0]) - 0.2 * np.abs(request)
    return {
        "policy": "trained, greedy",
        "symbol": symbol,
        "label": label,
        "price": price,
        "position": position,
        "request": request,
        "fills": fills,
        "net": net,
    }


def fill(bar: int, price: float, quantity: int, *, forced: bool = False) -> dict[str, Any]:
    return {"bar": bar, "price": price, "quantity": quantity, "forced": forced}


def full() -> dict[str, Any]:
    """Eleven policies on two symbols, and every part; NumPy's types among the numbers."""
    draw = np.random.default_rng(7)
    days = [str(day) for day in np.arange("2026-01-05", "2026-01-31", dtype="datetime64[D]")]
    days = [day for day in days if np.is_busday(day)][:19]
    return {
        "schema_version": 1,
        "created": "2026-02-03T14:05:09+00:00",
        "sentence": "After costs the greedy policy earned $212 per account over 19 sessions "
        "(95 % interval $132 to $292), more than every reference policy, but with 137 trials and "
        "19 days a Sharpe ratio of this size is not yet told from luck.",
        "provenance": {
            "checkpoint": "checkpoints/phase1_smoke/40",
            "checkpoint_hash": "9f2c5b1e7d0a4c38b6e4f1a2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6",
            "config_hash": "5e1d0c9b8a7f6e5d4c3b2a190807f6e5d4c3b2a1",
            "code": "b8c71ad20000",
            "versions": {"jax": "0.10.2", "numpy": "2.3.1", "python": "3.11.7"},
            "device": "cpu, 2 cores",
            "seeds": 32,
            "episodes": np.int64(64),
            "market": "minute bars of SPY and NVDA",
            "split": "test",
            "data_fingerprint": "c0ffee0123456789c0ffee0123456789",
            "notes": [
                "3 sessions of 22 are incomplete and are not counted as days",
                "the interval of the Sharpe ratio resamples blocks of 5 days",
            ],
            "trials": 137,
            "test_openings": 1,
        },
        "unit": "account over 19 sessions",
        "scenario_unit": "episode of 1,000 steps",
        "policies": {name: policy(name, draw, days) for name in NAMES},
        "sessions_shown": [
            session(draw, "SPY", f"{day}, {which}")
            for day, which in zip(days, ("median", "best", "worst"), strict=False)
        ],
        "replay": {
            "episodes": 200,
            "steps": 200_000,
            "agrees": True,
            "disagreements": 0,
            "other_weights": 0,
            "tolerance": "1e-6 of capital",
        },
        "gates": gates(),
        "stress": stress(),
        "capacity": capacity(),
        "sensitivity": sensitivity(),
        "walk_forward": walk_forward(),
    }


def gates() -> dict[str, Any]:
    def gate(name: str, threshold: str, value: float, error: Any, passed: Any, advice: str = ""):
        return {
            "gate": name,
            "threshold": threshold,
            "value": value,
            "standard_error": error,
            "passed": passed,
            "detail": "0 of 4,096 episodes" if name == "hard limit" else "",
            "advice": advice,
        }

    return {
        "schema_version": 1,
        "passed": False,
        "gates": [
            gate("reward band", "4 to 6", 5.543074178, 0.1867, True),
            gate("hard limit", "none", 0.0, 0.0, True),
            gate("entropy", "≥ 0.4 nats", 0.21, 0.0002, False, "raise ppo.ent_coef"),
            gate("Sharpe", "mean − 2 s.e. > 0", -48.6, 1.49, None),
        ],
        "warnings": [
            "the greedy policy earns 1.20 an episode, less than half of the sampled one's"
        ],
        "seconds": 40.5,
    }


def stress() -> list[dict[str, Any]]:
    scenarios = {
        "none": ("as it was", 212.0),
        "flash crash": ("−8 % in 10 bars, back in 60, once a session", -340.0),
        "volatility × 3": ("every return three times as large", -122.0),
        "spread × 5": ("quoted spread five times as wide", -610.0),
        "volume ÷ 10": ("a tenth of the volume", 31.0),
        "gap open": ("every open 3 % away from the last close", 180.0),
        "feed outage": ("no bars for 30 minutes a session", 205.0),
    }
    return [
        {
            "scenario": name,
            "what": what,
            "policy": "trained, greedy",
            "net_pnl": interval(net, 60.0),
            "worst": net - 900.0,
            "max_drawdown": 0.031,
            "hard_breaches": 0.02,
            "forced_exits": 1.3,
            "bars_lost": 30,
        }
        for name, (what, net) in scenarios.items()
    ]


def capacity() -> list[dict[str, Any]]:
    return [
        {
            "capital": capital,
            "policy": "trained, greedy",
            "net_pnl": interval(capital * net / 1e4, capital * 8 / 1e4),
            "net_bp": net,
            "cost_bp": cost,
            "participation": min(0.1, 2e-9 * capital),
        }
        for capital, net, cost in zip(
            (1e4, 1e5, 1e6, 1e7, 1e8, 1e9),
            (43.0, 41.0, 30.0, 4.0, -60.0, -190.0),
            (3.7, 3.8, 4.6, 7.0, 13.0, 26.0),
            strict=True,
        )
    ]


def sensitivity() -> list[dict[str, Any]]:
    values: dict[str, tuple[Any, ...]] = {
        "fills.bid_ask_spread_bps": (1.0, 2.5, 5.0, 10.0),
        "fills.impact_scale": (0.5, 1.0, 2.0),
        "safeguards.trade_cooldown_steps": (0, 5, 10, 20),
        "latency_bars": (0, 1),
    }
    return [
        {
            "parameter": name,
            "value": value,
            "policy": "trained, greedy",
            "net_pnl": interval(240.0 - 90.0 * place, 40.0),
        }
        for name, chosen in values.items()
        for place, value in enumerate(chosen)
    ]


def walk_forward() -> dict[str, Any]:
    return {
        "folds": [
            {
                "train": [f"2025-{month:02}-01", f"2025-{month + 2:02}-28"],
                "test": [f"2025-{month + 3:02}-01", f"2025-{month + 3:02}-28"],
                "validation": None,
                "sessions": 20,
                "symbols": ["SPY", "NVDA"],
                "net_pnl": net,
                "sampled_net_pnl": net - 4.0,
                "best_reference": "buy and hold" if month % 2 else "flat",
                "best_reference_net_pnl": 55.0 if month % 2 else 0.0,
                "gross_pnl": net + 30.0,
                "cost_total_bp": 3.1,
                "sharpe": net / 20 if month > 1 else math.nan,
                "sharpe_error": 3.6 if month > 1 else math.nan,
                "stopped_accounts": month % 2,
                "checkpoint": f"checkpoints/walk-fold{month - 1}/120",
                "checkpoint_hash": "9f2c5b1e7d0a4c38" * 4,
                "updates": 120,
            }
            for month, net in enumerate((31.0, -60.0, -12.5, 44.0, -80.0), 1)
        ],
        "windows": "train=60d,test=20d,step=20d",
        "trials": 137,
        "test_openings": 6,
        "notes": ["sessions after 2025-08-28 are not used: 4, too few for one more fold"],
        "overall": metrics(-77.5, 80.0),
        "sentence": "Out of sample the five folds together lost $77.50 (95 % interval −$234 to "
        "$79): no edge after costs was found.",
    }


def minimal() -> dict[str, Any]:
    """One policy, one symbol, no trade, nothing recorded, every number NaN or infinite."""
    nothing = {name: interval(math.nan) for name in schema.METRICS}
    nothing["sharpe"] = interval(math.inf)
    report = full()
    return report | {
        "policies": {
            "trained, greedy": {
                "kind": "trained",
                "overall": nothing,
                "symbols": {"X": nothing},
                "daily": {"labels": [], "net": [], "low": [], "high": []},
                "equity": {"bar": [], "mean": [], "low": [], "high": [], "drawdown": []},
                "by_minute": {"minute": [], "net": [], "orders": []},
                "returns_histogram": {"edges": [], "counts": []},
                "reward_terms": {"equity_change": math.nan},
                "requests": {"sell": math.nan, "hold": math.nan, "buy": math.nan},
            }
        },
        "provenance": report["provenance"]
        | {
            "checkpoint_hash": None,
            "config_hash": None,
            "code": None,
            "device": None,
            "split": None,
            "data_fingerprint": None,
            "notes": [],
            "versions": {},
            "seeds": 1,
            "episodes": 1,
        },
        "sessions_shown": [],
        "replay": None,
        "gates": None,
        "stress": None,
        "capacity": None,
        "sensitivity": None,
        "walk_forward": None,
    }


def negative() -> dict[str, Any]:
    """Everything loses, hugely; one session shown has one bar, and a name that HTML must escape."""
    report = full()
    loser = "<b>trained</b> & greedy"
    worst = policy("random", np.random.default_rng(1), ["1"])
    worst |= {"kind": "trained", "overall": metrics(-3.2e9, 1e8), "raster": None}
    worst["symbols"] = {"X": metrics(-3.2e9, 1e8)}
    worst["overall"]["gross_pnl"] = interval(-1.0e9, 1e8)
    worst["equity"] = {
        "bar": [0, 1],
        "mean": [0.0, -0.99],
        "low": [0.0, -1.0],
        "high": [math.nan, -0.98],
        "drawdown": [0.0, 0.99],
    }
    one = session(np.random.default_rng(2), "X", "")
    for name in ("price", "position", "request", "net"):
        one[name] = one[name][:1]
    return report | {
        "policies": {loser: worst},
        "sessions_shown": [one | {"policy": loser, "fills": [fill(0, 610.0, -5, forced=True)]}],
        "replay": report["replay"] | {"disagreements": 3, "agrees": False},
        "capacity": [row | {"policy": loser, "net_bp": None} for row in report["capacity"]],
    }
