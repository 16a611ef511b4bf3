"""``datavisor quickstart``: from nothing to a page with tagged photographs, and the same command to come back to it."""

import errno
import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.management.commands.collectstatic import Command as CollectStatic
from django.core.management import call_command
from django.core.management.base import CommandError
from django.urls import reverse
from whitenoise.storage import CompressedManifestStaticFilesStorage

from vlm import services
from vlm.demo import DEMO_CHECKPOINT, DEMO_PHOTOS
from vlm.errors import Refusal
from vlm.management.commands._shared import INTERRUPTED, SOME_FAILED, USAGE, DoorCommand, program
from vlm.models import Dataset
from vlm.process import keeper, sample_store
from vlm.runs.options import RunOptions

DEMO_DATASET = "Bundled photographs"
START_SECONDS = 300  # for one that never answers; one that ends is noticed at once
STOP_SECONDS = 90
PORTS_TRIED = 20


class Command(DoorCommand):
    """Migrate, make an administrator, import, serve, and tag while the page shows it. Safe to run again and again."""

    help = "Set up, import and tag the bundled photographs (or your own), and serve the page."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", metavar="FOLDER", help="your images instead of the bundled ones; or their URL")
        parser.add_argument(
            "--model",
            help="hub id or folder of the model (default: DATAVISOR_VLM_MODEL; else with --data vikhyatk/moondream2, "
            "without the last one that tagged here, at first the demonstration checkpoint)",
        )
        parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: this machine only)")
        parser.add_argument("--port", type=_port, default=8000, help="the next free one from here on (default: 8000)")
        parser.add_argument("--no-serve", action="store_true", help="do everything but serve")
        parser.add_argument("--no-progress", action="store_true", help="no progress bars")

    def handle(self, *args: Any, **options: Any) -> None:
        data: str | None = options["data"]
        if settings.IS_LOCAL and shown_host(options["host"]) not in settings.ALLOWED_HOSTS:
            raise CommandError(
                f"On {options['host']} others could reach this server, and it would refuse them: set DATAVISOR_ALLOWED_HOSTS "
                "and put a proxy in front of it (see the README), or leave --host out.",
                returncode=USAGE,
            )
        root = str(DEMO_PHOTOS.resolve()) if data is None else services.datasets.root_named(text=str(data))
        if root is None:
            raise CommandError(f"{data} is not a folder. Name the one your images lie in.", returncode=USAGE)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        call_command("migrate", interactive=False, verbosity=0)
        _collect_static()
        user, password = _administrator()
        dataset = self._imported(root, own=data is not None, no_progress=options["no_progress"])
        model = chosen_model(options["model"], data)
        if model not in (options["model"], "", str(DEMO_CHECKPOINT)):
            dataset = None  # whoever comes back finds the page as it was left, and asks what there is to ask
        elif dataset is not None:
            self._tell_download(model)
        if options["no_serve"]:
            self._greet(None, user, password)
            if not self._tag(dataset, model, options["no_progress"]):
                self.stdout.write("Nothing is left to tag.")
            return
        port = free_port(options["host"], options["port"])
        address = f"http://{shown_host(options['host'])}:{port}"
        server = _serve(options["host"], port, model)
        try:
            _wait_until_up(server, address)
            self._greet(address, user, password)
            self._tag_while_serving(dataset, model, options["no_progress"])
            self.stdout.write("\nThe page stays up until you press Ctrl-C.")
            self.stdout.flush()
            code = server.wait()
        except KeyboardInterrupt:
            code = 0
        finally:
            _stop(server)
        if code:
            raise CommandError(f"The server stopped with exit code {code}; the lines above say why.")

    def _imported(self, root: str, *, own: bool, no_progress: bool) -> Dataset | None:
        """Return the data set to tag, imported or, if it is one's own, imported again."""
        known = services.datasets.of_root(root=root)
        if not own and (known.imported if known else services.datasets.names()):
            return known
        # A data set that is known may have more images by now, or its first import broke off.
        new = DEMO_DATASET if not own else _free_name(services.datasets.name_of(root=root))
        name = known.name if known else new
        call_command("import_dataset", root, name=name, no_progress=no_progress, stdout=self.stdout)
        return services.datasets.find(text=name)

    def _tell_download(self, model: str) -> None:
        """Say what is fetched, before it is: some want to stay offline, or to wait for a better line."""
        from huggingface_hub import constants

        size = services.runs.to_fetch(model=model)
        if not size:
            return
        name = model or settings.VLM_MODEL
        if constants.is_offline_mode():
            self.stdout.write(f"{name} is not on this machine, and HF_HUB_OFFLINE is set: nothing will be tagged.")
        else:
            self.stdout.write(f"{name} will be fetched first: {size / 1e9:.1f} GB into {constants.HF_HUB_CACHE}.")
            self.stdout.write("To stay offline, set HF_HUB_OFFLINE=1: nothing is fetched then, and nothing tagged.")
        self.stdout.write("--model with a folder takes a model of your own (make run MODEL=/path/to/it).")

    def _tag(self, dataset: Dataset | None, model: str, no_progress: bool) -> bool:
        """Tag what has no answer yet; returns whether there was anything.

        Raises:
            CommandError, SystemExit: as ``autotag`` does, except that images that cannot be read are no reason.
        """
        if dataset is None or not _waiting(dataset, model):
            return False
        try:
            call_command("autotag", str(dataset.pk), model=model, no_progress=no_progress, stdout=self.stdout)
        except SystemExit as end:
            if end.code != SOME_FAILED:
                raise
        return True

    def _tag_while_serving(self, dataset: Dataset | None, model: str, no_progress: bool) -> None:
        """Tag; whatever goes wrong is told, and the page stays."""
        try:
            self._tag(dataset, model, no_progress)
        except (CommandError, Refusal) as error:
            self.stderr.write(str(error))
        except SystemExit as end:
            if end.code == INTERRUPTED:
                raise KeyboardInterrupt from end
        finally:
            # From here on the server has the model and the store for itself.
            keeper.release()
            sample_store().close()

    def _greet(self, address: str | None, user: AbstractBaseUser, password: str | None) -> None:
        from sesame.utils import get_query_string  # reads the secret key, which ``--help`` must not make

        lines = []
        if address:
            link = f"{address}{reverse('enter')}{get_query_string(user)}"
            lines += [
                f"DataVisor is at  {address}",
                f"Enter with       {link}",
                "                 (good once, for ten minutes)",
            ]
        if password:
            lines += [
                f"Administrator    {user.get_username()}",
                f"Password         {password}",
                f"                 (shown this once; `{program()} changepassword` makes another)",
            ]
        for run in services.runs.interrupted():
            lines += [
                f"Interrupted      run {run.pk} of “{run.dataset.name}”, at {run.processed:,} of {run.total:,} images",
                f"                 ({program()} autotag {run.dataset_id} --resume goes on, as does the page)",
            ]
        if lines:
            self.stdout.write("\n" + "\n".join(lines) + "\n\n")
            self.stdout.flush()


def chosen_model(asked: str | None, data: str | None) -> str:
    """Return the model to serve with: the asked one, else the last one at work here, else the demonstration's.

    Empty for that of the settings: where the environment names one, or with ``data``.
    """
    if asked or data or os.environ.get("DATAVISOR_VLM_MODEL") or os.environ.get("DATAVISOR_VLM_MODEL_FILE"):
        return asked or ""
    return services.runs.last_model() or str(DEMO_CHECKPOINT)


def _waiting(dataset: Dataset, model: str) -> int:
    """Return how many samples lack an answer. Those that could not be read are left to ``autotag --scope failed``."""
    return services.runs.extent(dataset=dataset, options=RunOptions(model=model)).images


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Take a signal that would end this process on the spot as Ctrl-C, so that the server is stopped too."""
    raise KeyboardInterrupt


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ArgumentTypeError(f"“{text}” is not a port: a number from 1 to 65535")
    return int(text)


def _collect_static() -> None:
    """Compress and fingerprint the static files, unless they are as they were."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage in finder.list([]):
            stat = Path(storage.path(name)).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    mark = Path(settings.DATA_DIR) / "static.sha256"
    manifest = Path(settings.STATIC_ROOT) / "staticfiles.json"
    if manifest.is_file() and mark.is_file() and mark.read_text() == digest.hexdigest():
        return
    command = CollectStatic()
    command.storage = CompressedManifestStaticFilesStorage()
    call_command(command, interactive=False, verbosity=0)
    mark.write_text(digest.hexdigest())


def _administrator() -> tuple[AbstractBaseUser, str | None]:
    """Return a superuser, and its password if it was made just now."""
    users = get_user_model().objects
    if (user := users.filter(is_superuser=True, is_active=True).order_by("pk").first()) is not None:
        return user, None
    taken = set(users.values_list("username", flat=True))
    name = next(n for n in ("admin", *(f"admin{i}" for i in range(2, len(taken) + 3))) if n not in taken)
    password = secrets.token_urlsafe(12)
    return users.create_superuser(name, password=password), password


def _free_name(name: str) -> str:
    taken = set(services.datasets.names(beginning=name))
    return next(n for n in (name, *(f"{name} {i}" for i in range(2, len(taken) + 3))) if n not in taken)


def shown_host(host: str) -> str:
    """Return the host as it stands in an address that a browser on this machine can open."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        return "localhost"
    return f"[{host}]" if ":" in host else host


def free_port(host: str, first: int) -> int:
    """Return ``first``, or the next of the twenty ports after it that is free.

    Raises:
        CommandError: none is, or the address is not this machine's.
    """
    last = min(first + PORTS_TRIED, 65535)
    for port in range(first, last + 1):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError:
                raise CommandError(f"Port {port} is not yours to open; choose one above 1023 with --port.") from None
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise CommandError(f"{host} is no address of this machine; choose another with --host.") from error
            return port
    raise CommandError(f"No free port from {first} to {last} on {host}; choose another with --port.")


def _serve(host: str, port: int, model: str) -> subprocess.Popen[bytes]:
    """Start the server with this very project, data folder and model."""
    paths = [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "DATAVISOR_DATA_DIR": str(settings.DATA_DIR),
    }
    if model:
        environment["DATAVISOR_VLM_MODEL"] = model
    command = [sys.executable, "-m", "daphne", "-b", host, "-p", str(port), "-v", "0", "datavisor.asgi:application"]
    # In a session of its own, so that Ctrl-C reaches it through ``_stop`` only, once.
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _wait_until_up(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CommandError("The server did not start; the lines above say why.")
        try:
            urllib.request.urlopen(f"{address}{reverse('healthz')}", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, if only to other host names
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise CommandError(f"The server did not answer within {START_SECONDS} seconds.")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Let the server finish the batch at hand, as its own signal handler does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what follows is not to be cut short
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
