"""A Ray cluster of several nodes on this machine, which can lose them."""

import contextlib
import os
import signal

from benchmarks.cluster.local_cluster import LocalCluster


class RayCluster(LocalCluster):
    """A cluster whose nodes may vanish with all that runs on them."""

    def remove_node(self, index: int) -> None:
        """
        Have a node vanish, without a word.

        :param index: which
        """
        # Ray's own process ends; the host would notice that only after a while.
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(self.host(index), signal.SIGKILL)
        self._cluster.remove_node(self.nodes.pop(index), allow_graceful=False)

    def close(self) -> None:
        """End everything, what is stopped too."""
        for index in range(len(self.nodes)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.raylet(index), signal.SIGCONT)
        super().close()
