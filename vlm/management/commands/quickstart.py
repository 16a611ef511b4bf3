"""``datavisor quickstart``: from nothing to a page with tagged photographs, and the same command to come back to it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import sesame.utils
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from vlm.demo import DEMO_CHECKPOINT, DEMO_PHOTOS
from vlm.models import Dataset

DEMO_DATASET = "Bundled photographs"
START_SECONDS = 60


class Command(BaseCommand):
    """Migrate, make an administrator, import, serve, and tag while the page shows it. Safe to run again and again."""

    help = "Set up, import and tag the bundled photographs (or your own), and serve the page."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, metavar="FOLDER", help="your images instead of the bundled ones")
        parser.add_argument(
            "--model", help="hub id or folder of the model; without --data: the demonstration checkpoint"
        )
        parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: this machine only)")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--no-serve", action="store_true", help="do everything but serve")
        parser.add_argument("--no-progress", action="store_true", help="no progress bars")

    def handle(self, *args: Any, **options: Any) -> None:
        data: Path | None = options["data"]
        if data is not None and not data.is_dir():
            raise CommandError(f"{data} is not a folder. Name the one your images lie in.")
        quiet = {"verbosity": 0}
        call_command("migrate", interactive=False, **quiet)
        self._collect_static()
        user, password = _administrator()
        dataset = self._imported(data, options["no_progress"])
        model = options["model"] or os.environ.get("DATAVISOR_VLM_MODEL") or ("" if data else str(DEMO_CHECKPOINT))
        environment = _child_environment(model)
        tagging = [*_datavisor("autotag"), str(dataset.pk)] if dataset else []
        if tagging and options["no_progress"]:
            tagging.append("--no-progress")
        if options["no_serve"]:
            self._greet(None, user, password)
            if tagging and subprocess.run(tagging, env=environment, check=False).returncode not in (0, 1):
                raise CommandError("Tagging did not finish; the lines above say why.")
            return
        port = _free_port(options["host"], options["port"])
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "daphne",
                "-b",
                options["host"],
                "-p",
                str(port),
                "-v",
                "0",
                "datavisor.asgi:application",
            ],
            env=environment,
        )
        try:
            _wait_until_up(server, options["host"], port)
            self._greet(f"http://{options['host']}:{port}", user, password)
            if tagging:
                subprocess.run(tagging, env=environment, check=False)
            self.stdout.write("\nThe page stays up until you press Ctrl-C.")
            code = server.wait()
        except KeyboardInterrupt:
            code = 0
        finally:
            _stop(server)
        if code:
            raise CommandError(f"The server stopped with exit code {code}; the lines above say why.")

    def _collect_static(self) -> None:
        subprocess.run(
            [*_datavisor("collectstatic"), "--no-input", "--verbosity", "0"],
            env=_child_environment("") | {"DATAVISOR_COLLECTING": "1"},
            check=True,
        )

    def _imported(self, data: Path | None, no_progress: bool) -> Dataset | None:
        """Return the data set to tag, imported now if it is not there yet."""
        root = (data or DEMO_PHOTOS).resolve()
        known = Dataset.objects.filter(root=str(root)).first()
        if known is not None or (data is None and Dataset.objects.exists()):
            return known
        name = DEMO_DATASET if data is None else _free_name(root.name or "images")
        call_command("import_dataset", str(root), name=name, no_progress=no_progress)
        return Dataset.objects.get(name=name)

    def _greet(self, address: str | None, user: AbstractBaseUser, password: str | None) -> None:
        lines = []
        if address:
            link = f"{address}{reverse('enter')}{sesame.utils.get_query_string(user)}"
            lines += [
                f"DataVisor is at  {self.style.SUCCESS(address)}",
                f"Enter with       {link}",
                "                 (good once, for ten minutes)",
            ]
        if password:
            lines += [
                f"Administrator    {user.get_username()}",
                f"Password         {password}",
                "                 (shown this once; `manage.py changepassword` makes another)",
            ]
        self.stdout.write("\n" + "\n".join(lines) + "\n")


def _administrator() -> tuple[AbstractBaseUser, str | None]:
    """Return a superuser, and its password if it was made just now."""
    users = get_user_model()._default_manager
    if (user := users.filter(is_superuser=True, is_active=True).order_by("pk").first()) is not None:
        return user, None
    password = secrets.token_urlsafe(12)
    return get_user_model().objects.create_superuser("admin", password=password), password


def _free_name(name: str) -> str:
    taken = set(Dataset.objects.filter(name__startswith=name).values_list("name", flat=True))
    return next(n for n in (name, *(f"{name} {i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _datavisor(command: str) -> list[str]:
    return [sys.executable, "-m", "datavisor", command]


def _child_environment(model: str) -> dict[str, str]:
    """Return the environment in which ``python -m datavisor`` finds this very project, data folder and model."""
    paths = [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "DATAVISOR_DATA_DIR": str(settings.DATA_DIR),
    }
    return environment | {"DATAVISOR_VLM_MODEL": model} if model else environment


def _free_port(host: str, first: int) -> int:
    """Return ``first``, or the next of the twenty ports after it that is free.

    Raises:
        CommandError: none is, or the address is not this machine's.
    """
    for port in range(first, first + 21):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError:
                raise CommandError(f"Port {port} is not yours to open; choose one above 1023 with --port.") from None
            except OSError:
                continue
            return port
    raise CommandError(f"No free port from {first} to {first + 20} on {host}; choose another with --port.")


def _wait_until_up(server: subprocess.Popen[bytes], host: str, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CommandError("The server did not start; the lines above say why.")
        try:
            urllib.request.urlopen(f"http://{host}:{port}{reverse('healthz')}", timeout=2).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise CommandError(f"The server did not answer within {START_SECONDS} seconds.")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Let the server finish the batch at hand, as its own signal handler does."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
