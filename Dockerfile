# virtualchain's command, for use with a PostgreSQL and a bitcoind beside it (docker-compose.yml).
#
# Build: docker build -t virtualchain .
# An app of yours: mount its folder at /app, which is where the command runs.

FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY virtualchain ./virtualchain
COPY sql ./sql
COPY migrations ./migrations
RUN python -m venv /opt/virtualchain && /opt/virtualchain/bin/pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/virtualchain /opt/virtualchain
RUN useradd --create-home virtualchain && mkdir /app && chown virtualchain /app
ENV PATH=/opt/virtualchain/bin:$PATH PYTHONUNBUFFERED=1
USER virtualchain
WORKDIR /app
ENTRYPOINT ["virtualchain"]
CMD ["run"]
