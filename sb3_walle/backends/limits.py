def check_descriptors(n_samplers: int) -> None:
    return None
