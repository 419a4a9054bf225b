"""`python -m jules_jax` lists the commands."""

COMMANDS = {
    "train": "train a recurrent agent on simulated paths or on your own bars",
    "evaluate": "replay a trained agent on fresh paths or held-out sessions",
    "gates": "judge a trained agent by the gates of its config",
    "calibrate": "choose a setting's value at which trained agents earn what is asked",
    "data": "check files of bars, build datasets of them, measure recorded and simulated markets",
    "runs": "list, show and compare every run ever started; remove what old ones left",
    "audit": "prove recorded episodes by hashes, twin and checkpoint; explain a decision in words",
}

if __name__ == "__main__":
    print("jules_jax: recurrent PPO trading agents, trained end to end on the device\n")
    for name, text in COMMANDS.items():
        print(f"  python -m jules_jax.{name:<10} {text}")
    print("\nEach takes --help.")
