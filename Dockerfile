# The server with its Python packages; data sets and DataVisor's own data come in as volumes.
# For an NVIDIA GPU: --build-arg TORCH_INDEX=https://pypi.org/simple, whose PyTorch brings CUDA.
FROM python:3.11-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# With PostgreSQL: --build-arg EXTRAS='psycopg[binary]' --build-arg PACKAGES=postgresql-client, which backups need. Its version
# is Debian's 15: a newer server than that wants a newer client.
ARG EXTRAS=""
ARG PACKAGES=""

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    DATAVISOR_DATA_DIR=/data \
    DATAVISOR_IMPORT_ROOTS=/images \
    HF_HOME=/data/huggingface

RUN if [ -n "$PACKAGES" ]; then \
      apt-get update && apt-get install -y --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi

RUN groupadd --gid 10001 datavisor \
 && useradd --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin datavisor \
 && mkdir -p /data /images && chown datavisor:datavisor /data

WORKDIR /app
COPY requirements.txt requirements-hashed.txt requirements-dev.txt ./
RUN grep '^torch==' requirements.txt > torch.txt \
 && pip install --index-url "$TORCH_INDEX" -r torch.txt \
 && pip install --require-hashes -r requirements-hashed.txt \
 && pip install -r requirements.txt \
 && if [ -n "$EXTRAS" ]; then pip install -c requirements.txt -c requirements-dev.txt $EXTRAS; fi

COPY manage.py pyproject.toml README.md LICENSE ./
COPY datavisor datavisor
COPY vlm vlm
COPY templates templates

USER datavisor
VOLUME ["/data"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]

# One process: it holds the model and the DuckDB file. A proxy ends TLS in front of it.
CMD ["sh", "-c", "python manage.py migrate --no-input && DATAVISOR_COLLECTING=1 python manage.py collectstatic --no-input && exec daphne --bind 0.0.0.0 --port 8000 datavisor.asgi:application"]
