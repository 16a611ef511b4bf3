"""Daphne itself, which also writes down how many connections it knows after each round of its housekeeping.

Its application is DataVisor, and one address more, whose answer breaks off.
"""

from typing import Any

from daphne.cli import CommandLineInterface
from daphne.server import Server


class Watched(Server):  # type: ignore[misc]  # daphne ships no types
    def application_checker(self) -> None:
        super().application_checker()
        print(f"connections: {len(self.connections)}", flush=True)


async def application(scope: Any, receive: Any, send: Any) -> None:
    from datavisor.asgi import application as datavisor

    if scope["type"] != "http" or scope["path"] != "/breaks":
        await datavisor(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000")]})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise OSError("Nothing more can be read.")


if __name__ == "__main__":
    import datavisor.asgi  # noqa: F401  (puts its guards in place before the first connection)

    CommandLineInterface.server_class = Watched
    CommandLineInterface.entrypoint()
