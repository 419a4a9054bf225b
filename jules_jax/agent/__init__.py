"""Agent: the recurrent actor-critic, its rollouts and its PPO learner."""
