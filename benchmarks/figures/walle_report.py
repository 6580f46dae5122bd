"""
What the WALL-E report (Xu et al., 2018) measured: HalfCheetah-v2, 20,000 samples an iteration, time in minutes.
"""

SAMPLES_PER_ITERATION = 20_000
SECONDS_PER_MINUTE = 60

#: figure 4: seconds of collection in an iteration, by the number of samplers
COLLECTION_SECONDS = {
    n_samplers: SECONDS_PER_MINUTE * minutes
    for n_samplers, minutes in {1: 0.234, 2: 0.1235, 5: 0.038, 8: 0.028, 10: 0.019, 20: 0.012}.items()
}
#: figure 5: how many times as fast as one sampler collection is
SPEED_UP = {1: 1.0, 2: 1.9, 5: 6.2, 8: 8.3, 10: 12.3, 20: 19.5}
#: figure 6: the share of an iteration that is learning
LEARNING_SHARE = {1: 0.13, 2: 0.25, 5: 0.48, 8: 0.63, 10: 0.67, 20: 0.76}
#: figure 7: seconds of learning in an iteration, about the same for any number of samplers
LEARNING_SECONDS = dict.fromkeys(SPEED_UP, SECONDS_PER_MINUTE * 0.038)
