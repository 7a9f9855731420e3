# The environment of requirements.lock with the project in it. `docker compose up` serves MLflow; see compose.yaml.
FROM python:3.12-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# not root: what the pipeline writes into a mounted folder belongs to its user (build with --build-arg UID=$(id -u))
ARG UID=1000
RUN useradd --create-home --uid "${UID}" ctr && mkdir /app && chown ctr /app
USER ctr
WORKDIR /app

# the environment first: it changes seldom
ENV VIRTUAL_ENV=/app/.venv PATH=/app/.venv/bin:$PATH
COPY --chown=ctr requirements.lock ./
RUN python -m venv .venv && pip install --no-cache-dir --disable-pip-version-check -r requirements.lock

COPY --chown=ctr . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && dvc config --local core.no_scm true \
    && touch .venv/.complete

EXPOSE 5000
ENTRYPOINT ["ctr"]
CMD ["--help"]
