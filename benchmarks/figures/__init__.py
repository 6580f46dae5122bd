"""The figures of the WALL-E report, made anew: collection, learning and return with one sampler and with many."""
