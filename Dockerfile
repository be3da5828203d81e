# docker build -t openai-compat .
# docker run --rm -p 8000:8000 --env-file .env openai-compat
#
# No setting and no key is baked in: an image is pushed, pulled and kept, and whoever has it has what is in it.
# docs/guides/deployment.md says more. tests/e2e/deploy/test_dockerfile.py walks through these steps without Docker.

# --- dependencies: built again only when requirements.txt changes -----------------------------------------------------
FROM python:3.13-slim AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.txt /tmp/requirements.txt
RUN /venv/bin/pip install -r /tmp/requirements.txt

# --- the image: no pip cache, no build tools, no root -----------------------------------------------------------------
FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin server
COPY --from=dependencies /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
COPY config.py wsgi.py gunicorn.conf.py ./
COPY openai_compat ./openai_compat
# Compiled once here: the server's user may not write, and would compile at every start.
RUN python -m compileall -q .
# By number, so that Kubernetes can see that it is not root.
USER 10001
EXPOSE 8000
# gunicorn finishes its running streams (GRACEFUL_TIMEOUT). Docker kills after 10 s unless told: `docker stop -t 310`.
STOPSIGNAL SIGTERM
# http.client and not urllib: it knows no HTTP_PROXY, which may be set for the calls to models.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --start-interval=1s CMD ["python", "-c", "\
import config, http.client, sys; \
server = http.client.HTTPConnection('127.0.0.1', config.load(with_models=False).port, timeout=4); \
server.request('GET', '/healthz'); \
sys.exit(server.getresponse().status != 200)"]
# gunicorn reads gunicorn.conf.py from the working directory.
CMD ["gunicorn", "wsgi:app"]
