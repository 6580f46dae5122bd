"""From a graph of operators to machine code: compiled in a process of its own, kept on disk, loaded when ready."""
