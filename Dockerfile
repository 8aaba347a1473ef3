# The virtualchain command, for use with PostgreSQL and bitcoind (see docker-compose.yml).
#
# Build: docker build -t virtualchain .
# To run your own app, mount its folder at /app, the working directory. The container's root may be read-only
# (`docker run --read-only --tmpfs /tmp`): only apps that keep a state of their own save it below /home/virtualchain,
# which then needs a volume.

FROM python:3.12.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY .ci/compile.py ./.ci/
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY virtualchain ./virtualchain
COPY sql ./sql
COPY migrations ./migrations
RUN python -m venv /opt/virtualchain && VIRTUALCHAIN_COMPILED=1 /opt/virtualchain/bin/pip install --no-cache-dir '.[metrics,web]'

FROM python:3.12.12-slim-bookworm
COPY --from=build /opt/virtualchain /opt/virtualchain
RUN useradd --create-home --uid 10001 virtualchain && mkdir /app && chown virtualchain /app
ENV PATH=/opt/virtualchain/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /app
ENTRYPOINT ["virtualchain"]
CMD ["run"]
