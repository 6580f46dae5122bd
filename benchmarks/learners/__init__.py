"""What several learners gain, see :mod:`benchmarks.learners.__main__`."""
