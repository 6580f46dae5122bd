"""
Matrix products by oneDNN.

They are most of what an update computes. torch has two libraries for them, and by default asks MKL, which uses AVX-512
on Intel's processors only. oneDNN uses it everywhere. AMD's processors since Zen 5 make twice as many operations with
it: one thread of a Zen 5 multiplied large matrices at 220 GFLOP/s by oneDNN and at 107 by MKL. On a Zen 4, whose
AVX-512 units are half as wide, the two are equal.
"""

import torch as th

from sb3_walle.updates.native.processor import described

# Products of more multiplications are worth oneDNN's longer way to its code. Measured on one thread of an EPYC with
# AVX-512: [256, 64] by [64, 64] takes as long either way, [32, 256] by [256, 256] less by oneDNN, smaller ones more.
LARGE = 2**20
# Vendor and family of the processor, as Linux names them.
AMD, ZEN_5 = "AuthenticAMD", 26


def are_faster() -> bool:
    """Whether large products are faster by oneDNN than by what torch uses by itself, on this machine."""
    has_both = th.backends.mkl.is_available() and th.backends.mkldnn.is_available()
    if not has_both or th.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    vendor, family = _field("vendor_id"), _field("cpu family")
    return vendor == AMD and family.isdecimal() and int(family) >= ZEN_5


def is_large(rows: int, inner: int, columns: int) -> bool:
    """Whether oneDNN should make a product, where it is faster."""
    return rows * inner * columns > LARGE


def _field(name: str) -> str:
    return described(name).partition(":")[2].strip()
