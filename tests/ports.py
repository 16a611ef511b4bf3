"""Ports of loopback that are one test's for as long as it wants them."""

import socket


def reserved() -> socket.socket:
    """Return a socket that holds a port.

    A port that is bound and not listened to is given to nobody else, refuses whoever comes, and may be listened to by a server
    that says ``SO_REUSEADDR``, as all of ours do; also when that server goes and comes back.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder
