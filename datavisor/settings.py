"""Every setting of DataVisor, read from the environment; a bad value stops the start and says what to write.

Reading them writes nothing: the data folder and the local key are made when they are first needed (``datavisor.private``).

Without ``DATAVISOR_ALLOWED_HOSTS`` the server is a local one: it answers on this machine's own names only, and makes
itself a secret key on its first run. With it, the server is a deployment: HTTPS cookies, and a key that you provide.
"""

import math
import os
import re
import secrets
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import SimpleLazyObject

from datavisor.private import FILE, KEY_FILE, own_data_dir
from vlm.scoring.places import Workers, WorkersUnknown

PACKAGE_DIR = Path(__file__).resolve().parent
BASE_DIR = PACKAGE_DIR.parent
IS_CHECKOUT = (BASE_DIR / "manage.py").is_file()

env = environ.FileAwareEnv()


def text(name: str, default: str = "") -> str:
    """Return the variable ``name``, or what is in the file that ``name`` + ``_FILE`` names, without space around it.

    Taken as it stands: the library's own reader would replace a value that begins with “$”, as a key may.
    """
    try:
        value: str = env.ENVIRON.get(name, default)
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{name}_FILE names a file that cannot be read: {error}.") from error
    return value.strip()


def texts(name: str) -> list[str]:
    """Return what stands between the commas of the variable ``name``."""
    return [part.strip() for part in text(name).split(",") if part.strip()]


SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    """Return the variable ``name``, which must be one of ``allowed``."""
    value = text(name, default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is “{value}”; it must be one of {', '.join(allowed)}.")
    return value


def flag(name: str, default: bool) -> bool:
    """Return the switch in the variable ``name``; empty means the default."""
    value = text(name).lower()
    if value not in ("", *SWITCHES):
        raise ImproperlyConfigured(f"{name} is “{value}”; it must be one of {', '.join(SWITCHES)}.")
    return SWITCHES.get(value, default)


def at_least(name: str, default: float, minimum: float) -> float:
    """Return the number in the variable ``name``, which must not be below ``minimum``."""
    try:
        value = float(text(name, str(default)))
        if math.isinf(value):
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number, like {default:g}.") from None
    if not value >= minimum:
        raise ImproperlyConfigured(f"{name} is {value:g}; it must be at least {minimum:g}.")
    return value


def probability(name: str, default: float) -> float:
    value = at_least(name, default, 0)
    if value > 1:
        raise ImproperlyConfigured(f"{name} is {value:g}; a probability lies between 0 and 1.")
    return value


def resolved(name: str, path: str) -> Path:
    """Return ``path`` in full, with “~” as the home folder."""
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise ImproperlyConfigured(f"{name}: {path} leads nowhere ({error}). Write the whole path.") from error


def folders(name: str, default: list[Path]) -> list[Path]:
    """Return the folders listed in the variable ``name``, separated like ``PATH``."""
    if "://" in text(name):
        raise ImproperlyConfigured(f"{name} names a URL, and takes folders. URLs belong into DATAVISOR_IMPORT_URLS.")
    return [resolved(name, part) for part in text(name).split(os.pathsep) if part] or default


def needs(why: str, module: str, extra: str, package: str) -> None:
    """Stop the start where the library is not installed that a setting asks for."""
    try:
        import_module(module)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"{why}, and the library for it cannot be loaded ({error}). Install it: pip install 'datavisor[{extra}]', or in a "
            f"checkout: pip install '{package}'."
        ) from error


def home() -> list[Path]:
    """Return the user's home folder, if there is one: a user that the system does not know, in a container say, has none."""
    try:
        return [Path.home()]
    except RuntimeError:
        return []


# Where everything that is not code lives: DuckDB, SQLite, thumbnails, the secret key of a local server.
DATA_DIR = resolved(
    "DATAVISOR_DATA_DIR", text("DATAVISOR_DATA_DIR") or str((BASE_DIR if IS_CHECKOUT else Path.cwd()) / "data")
)

# -- who may reach it ------------------------------------------------------------------------------------------------
DEBUG: bool = flag("DATAVISOR_DEBUG", False)
ALLOWED_HOSTS: list[str] = texts("DATAVISOR_ALLOWED_HOSTS")
IS_LOCAL = not ALLOWED_HOSTS
if IS_LOCAL:
    ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]


def local_secret_key() -> str:
    """Return the secret key of a local server, made when it is first needed and kept beside its data."""
    path = own_data_dir(DATA_DIR) / KEY_FILE
    try:
        if not path.exists():
            # Whole or not at all: another process may be starting too.
            descriptor, made = tempfile.mkstemp(dir=DATA_DIR, prefix=f".{KEY_FILE}-")
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_urlsafe(64))
                Path(made).chmod(FILE)
                os.link(made, path)
            except FileExistsError:
                pass
            finally:
                Path(made).unlink()
        key = path.read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"The secret key {path} cannot be made or read: {error.strerror}. Give this user the right to, or set "
            "DATAVISOR_SECRET_KEY."
        ) from error
    if not key:
        raise ImproperlyConfigured(f"{path} is empty: delete it, and the next start makes a new key.")
    return key


def strong(name: str, key: str) -> str:
    """Return ``key``, by which whoever can guess it signs sessions: that of a deployment must be long and random."""
    if not IS_LOCAL and (len(key) < 50 or len(set(key)) < 5):
        raise ImproperlyConfigured(
            f"{name} is too easy to guess: write at least 50 random characters. This prints some: "
            "python -c 'import secrets; print(secrets.token_urlsafe(64))'"
        )
    return key


if "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "DATAVISOR_ALLOWED_HOSTS has “*”, which lets any web page pose as this server: write the names under which it is "
        "reached, such as tags.example.org, or .example.org for all below that."
    )
SECRET_KEY: Any = text("DATAVISOR_SECRET_KEY")
if SECRET_KEY:
    strong("DATAVISOR_SECRET_KEY", SECRET_KEY)
elif IS_LOCAL:
    SECRET_KEY = SimpleLazyObject(local_secret_key)
else:
    raise ImproperlyConfigured(
        "DATAVISOR_ALLOWED_HOSTS is set, so DATAVISOR_SECRET_KEY must be too: a long random text that stays."
    )
# To change the key without logging everybody out: the old one goes here until the sessions that it signed have ended.
SECRET_KEY_FALLBACKS = [strong("DATAVISOR_OLD_SECRET_KEYS", key) for key in texts("DATAVISOR_OLD_SECRET_KEYS")]

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not IS_LOCAL
CSRF_TRUSTED_ORIGINS: list[str] = texts("DATAVISOR_TRUSTED_ORIGINS")
SECURE_SSL_REDIRECT: bool = flag("DATAVISOR_SSL_REDIRECT", not IS_LOCAL)
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]
SECURE_HSTS_SECONDS = int(at_least("DATAVISOR_HSTS_SECONDS", 0 if IS_LOCAL else 31_536_000, 0))
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = not IS_LOCAL
BEHIND_PROXY = flag("DATAVISOR_BEHIND_PROXY", False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
# How many proxies stand in front of the server, each of which adds an entry to X-Forwarded-For.
PROXIES = int(at_least("DATAVISOR_PROXIES", 1 if BEHIND_PROXY else 0, 0))
# Of a request, in bytes; refused before it is read. Django's own limit, for forms without files, is 2.5 MB.
MAX_BODY = int(at_least("DATAVISOR_MAX_BODY_MB", 25, 1) * 2**20)
SECURE_REFERRER_POLICY = "same-origin"
CSRF_FAILURE_VIEW = "vlm.views.problems.form_refused"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14

CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "manifest-src": [SELF],
    }
}

# -- the application -------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "django_htmx",
    "csp",
    "axes",
    "knox",
    "vlm",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "csp.middleware.CSPMiddleware",
    "vlm.middleware.LastingSessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "vlm.middleware.TokenMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "vlm.middleware.ProblemMiddleware",
    "axes.middleware.AxesMiddleware",
]

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
    "sesame.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "datasets"
LOGOUT_REDIRECT_URL = "login"

# Ten wrong passwords for one name from one address: wait a quarter of an hour.
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "registration/locked_out.html"
AXES_VERBOSE = False

# The log-in link that the quick start prints: good once, for ten minutes.
SESAME_MAX_AGE = 600
SESAME_ONE_TIME = True

# The tokens of programs, which the model below keeps; REST framework, on which knox stands, does nothing else here.
KNOX_TOKEN_MODEL = "vlm.ApiToken"  # noqa: S105  (no password)
REST_KNOX = {"TOKEN_MODEL": KNOX_TOKEN_MODEL, "TOKEN_PREFIX": "dv_"}
TOKEN_RATE = int(at_least("DATAVISOR_TOKEN_RATE", 1200, 0))  # requests a minute with one token; 0: any

ROOT_URLCONF = "datavisor.urls"
ASGI_APPLICATION = "datavisor.asgi.application"

# A wheel carries the templates inside the package, a checkout beside it.
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates" if IS_CHECKOUT else PACKAGE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(DATA_DIR / "datavisor.sqlite3")}
}
ENGINES = {"django.db.backends.sqlite3": "datavisor.sqlite", "django.db.backends.postgresql": "datavisor.postgres"}
if DATABASE_URL := text("DATABASE_URL"):
    try:
        DATABASES["default"] = env.db_url_config(DATABASE_URL)
        if "." not in DATABASES["default"]["ENGINE"]:  # what the library makes of a scheme that it does not know
            raise ValueError(DATABASES["default"]["ENGINE"])
    except (ImproperlyConfigured, ValueError, KeyError) as error:
        raise ImproperlyConfigured(
            "DATABASE_URL cannot be read; write it like postgres://user:password@host:5432/name."
        ) from error
try:
    ENGINE = DATABASES["default"]["ENGINE"] = ENGINES[DATABASES["default"]["ENGINE"]]
except KeyError:
    raise ImproperlyConfigured(
        "DATABASE_URL names a database on which DataVisor does not run: it runs on PostgreSQL (postgres://…) and, where it is "
        "empty, on SQLite."
    ) from None
if ENGINE == "datavisor.sqlite":
    # The run's thread writes while pages read: WAL keeps them apart (``datavisor.sqlite`` sets it, once per process), and
    # IMMEDIATE takes the write lock before reading.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA synchronous=NORMAL",
    }
else:
    needs("DATABASE_URL names PostgreSQL", "psycopg", "postgres", "psycopg[binary]")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL: str = text("DATAVISOR_REDIS_URL")
if REDIS_URL:
    needs("DATAVISOR_REDIS_URL is set", "channels_redis", "redis", "channels-redis")
CHANNEL_LAYERS: dict[str, Any] = {
    "default": (
        {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            # The layer waits five seconds for a message, as long as the client waits for any answer unless it is told.
            "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 20, "socket_connect_timeout": 2}]},
        }
        if REDIS_URL
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}

LANGUAGE_CODE = "en"
TIME_ZONE = text("DATAVISOR_TIME_ZONE", "UTC")
try:
    ZoneInfo(TIME_ZONE)
except (ZoneInfoNotFoundError, ValueError, OSError):
    raise ImproperlyConfigured(f"DATAVISOR_TIME_ZONE is “{TIME_ZONE}”; write a name like Europe/Vienna.") from None
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
WHITENOISE_USE_FINDERS = True
warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)  # it is made by collecting into it
COLLECTED = not DEBUG and os.path.isfile(STATIC_ROOT / "staticfiles.json")  # noqa: PTH113  (False where one may not look)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": (
            "datavisor.static.StaticFiles"
            if COLLECTED or os.environ.get("DATAVISOR_COLLECTING")
            else "django.contrib.staticfiles.storage.StaticFilesStorage"
        )
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {
            "()": "datavisor.terminal.HarmlessFormatter",
            "format": "{asctime} {levelname:7} {name}: {message}",
            "style": "{",
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "vlm": {"level": choice("DATAVISOR_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))},
        "huggingface_hub": {"propagate": False},  # it brings a handler of its own, and would say everything twice
    },
}

# -- the samples ------------------------------------------------------------------------------------------------------
DUCKDB_PATH = DATA_DIR / "samples.duckdb"
DUCKDB_MEMORY: str = text("DATAVISOR_DUCKDB_MEMORY", "2GB")
if not re.fullmatch(r"\d+(\.\d+)?\s*([KMGT]i?B|%)", DUCKDB_MEMORY, re.IGNORECASE):
    raise ImproperlyConfigured(f"DATAVISOR_DUCKDB_MEMORY is “{DUCKDB_MEMORY}”; write a size like 2GB or 512MB.")
DUCKDB_THREADS = int(at_least("DATAVISOR_DUCKDB_THREADS", 0, 0))
STORE_WAIT = at_least("DATAVISOR_STORE_WAIT", 15, 0)  # seconds that a process queues for the file
THUMBNAIL_DIR = DATA_DIR / "thumbnails"

# The page imports from below these folders only; the command line, which has a shell's rights anyway, from anywhere.
IMPORT_ROOTS = folders("DATAVISOR_IMPORT_ROOTS", home() if IS_LOCAL else [])
# And from below these URLs; what they lead to is read with this process's own credentials.
IMPORT_URLS = texts("DATAVISOR_IMPORT_URLS")
if any(not re.fullmatch(r"(s3|gs|az)://[^/?@:]+(/[^?]*)?", url, re.IGNORECASE) for url in IMPORT_URLS):
    raise ImproperlyConfigured(
        "DATAVISOR_IMPORT_URLS holds what is no URL of a bucket; write s3://BUCKET/PREFIX, gs://… or az://…, with commas between."
    )
# Seconds that a job waits for a bucket that does not answer.
ROOT_WAIT = 60 * at_least("DATAVISOR_BUCKET_MINUTES", 30, 0)
MAX_PIXELS = int(at_least("DATAVISOR_MAX_PIXELS", 180_000_000, 1))

# -- the model --------------------------------------------------------------------------------------------------------
VLM_MODEL: str = text("DATAVISOR_VLM_MODEL", "vikhyatk/moondream2")
VLM_REVISION: str = text("DATAVISOR_VLM_REVISION")
VLM_DEVICE: str = text("DATAVISOR_VLM_DEVICE", "auto")
if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", VLM_DEVICE):
    raise ImproperlyConfigured(f"DATAVISOR_VLM_DEVICE is “{VLM_DEVICE}”; it must be auto, cpu, mps, cuda or cuda:1.")
try:
    WORKERS = str(Workers.parse(text("DATAVISOR_WORKERS")))
except WorkersUnknown as error:
    raise ImproperlyConfigured(f"DATAVISOR_WORKERS: {error}") from None
VLM_DTYPE = choice("DATAVISOR_VLM_DTYPE", "auto", ("auto", "float32", "bfloat16", "float16", "int8", "fp8"))
VLM_DETAIL = choice("DATAVISOR_VLM_DETAIL", "full", ("full", "low"))
VLM_BATCH_SIZE = int(at_least("DATAVISOR_VLM_BATCH_SIZE", 0, 0))  # 0: as many as fit
VLM_IDLE_MINUTES = at_least("DATAVISOR_VLM_IDLE_MINUTES", 15, 0)
VLM_MIN_PROBABILITY = probability("DATAVISOR_VLM_MIN_PROBABILITY", 0.5)
VLM_MIN_MASS = probability("DATAVISOR_VLM_MIN_MASS", 0.5)
