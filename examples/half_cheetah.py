"""Train HalfCheetah with ten samplers, then watch what it has learned. No main guard is needed."""

from stable_baselines3.common.evaluation import evaluate_policy

from sb3_walle import AsyncPPO

model = AsyncPPO("MlpPolicy", "HalfCheetah-v4", n_samplers=10, verbose=1)
model.learn(300_000, progress_bar=True)
model.save("half_cheetah")

mean_reward, std_reward = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
print(f"Reward of an episode: {mean_reward:.0f} +- {std_reward:.0f}")
