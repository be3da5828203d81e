# docker build -t openai-compat .
# docker run --rm -p 8000:8000 --env-file .env openai-compat
#
# The image contains no settings and no keys, because everyone with the image could read them.
# See docs/guides/deployment.md. tests/e2e/deploy/test_dockerfile.py runs these steps without Docker.

# A tag may change. For a reproducible image, name its digest: docs/guides/deployment.md.
ARG BASE_IMAGE=python:3.13-slim

# --- dependencies, rebuilt only when requirements.txt changes ---------------------------------------------------------
FROM ${BASE_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.txt /tmp/requirements.txt
RUN /venv/bin/pip install --require-hashes -r /tmp/requirements.txt

# --- image without pip cache, build tools and root --------------------------------------------------------------------
FROM ${BASE_IMAGE}
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin server
COPY --from=dependencies /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
COPY config.py wsgi.py gunicorn.conf.py ./
COPY openai_compat ./openai_compat
# Compiled at build time, because the server's user may not write and would compile at every start.
RUN python -m compileall -q .
# The directory of stored objects is the only one that the server may write. A volume mounted here inherits its owner.
RUN mkdir data
RUN chown 10001 data
# By number, so that Kubernetes can verify that it is not root.
USER 10001
EXPOSE 8000
# Running streams get GRACEFUL_TIMEOUT to finish. Docker kills after 10 s by default, so use `docker stop -t 310`.
STOPSIGNAL SIGTERM
# http.client instead of urllib, because it ignores HTTP_PROXY, which may be set for upstream calls.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --start-interval=1s CMD ["python", "-c", "\
import config, http.client, sys; \
server = http.client.HTTPConnection('127.0.0.1', config.load(with_models=False).port, timeout=4); \
server.request('GET', '/healthz'); \
sys.exit(server.getresponse().status != 200)"]
# gunicorn reads gunicorn.conf.py from the working directory.
CMD ["gunicorn", "wsgi:app"]
