"""
Runs a command in a network of its own, in which this machine can only reach itself: what the command starts cannot be
reached by others. Where the kernel refuses that, the command runs without it, and tests that need it are skipped.

usage: python own_network.py COMMAND [ARGUMENT ...]
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


def is_own_network() -> bool:
    """Whether this process has a network of its own: what is up in it is loopback. Some kernels add tunnels to each."""
    return [name for _, name in socket.if_nameindex() if _is_up(name)] == ["lo"]


def _is_up(name: str) -> bool:
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", name.encode(), 0)
        return bool(struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1] & _UP)


def enter_own_network() -> None:
    """
    Take a network of its own for this process, which must have one thread only.

    :raises OSError: if the kernel refuses
    """
    user, group = os.getuid(), os.getgid()
    is_root = user == 0
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK if is_root else _NEW_NETWORK | _NEW_USER) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if not is_root:
        # It stays the same user.
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


if __name__ == "__main__":
    try:
        enter_own_network()
    except OSError as error:
        print(f"No network of its own ({error}): the tests of the Ray backend are skipped.", file=sys.stderr)
    os.execvp(sys.argv[1], sys.argv[1:])
