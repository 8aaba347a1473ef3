# The virtualchain command, for use with PostgreSQL and bitcoind (see docker-compose.yml).
#
# Build: docker build -t virtualchain .
# To run your own app, mount its folder at /app, the working directory.

FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY .ci/compile.py ./.ci/
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY virtualchain ./virtualchain
COPY sql ./sql
COPY migrations ./migrations
RUN python -m venv /opt/virtualchain && VIRTUALCHAIN_COMPILED=1 /opt/virtualchain/bin/pip install --no-cache-dir '.[web]'

FROM python:3.12-slim
COPY --from=build /opt/virtualchain /opt/virtualchain
RUN useradd --create-home virtualchain && mkdir /app && chown virtualchain /app
ENV PATH=/opt/virtualchain/bin:$PATH PYTHONUNBUFFERED=1
USER virtualchain
WORKDIR /app
ENTRYPOINT ["virtualchain"]
CMD ["run"]
