# The service in a container, on the processor alone; `configs/compose.yaml` builds it and puts Prometheus and Grafana
# beside it. Alone:
#
#   docker build --tag protoken .
#   docker run --shm-size 2g --env PROTOKEN_HOST=0.0.0.0 --publish 127.0.0.1:8000:8000 --volume protoken:/srv/protoken/var protoken
#
# NOT TRIED: the machine where this was written has no container engine. Tests hold that what is copied is there, that
# the targets of make exist, and that the service does not run as root; no more.
FROM python:3.11-bookworm
WORKDIR /srv/protoken
COPY pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY attribution ./attribution
COPY rewards ./rewards
COPY deployment ./deployment
COPY configs ./configs
# What was installed is root's, so that the service cannot change its own code; only `var` is its own: the ledger, the
# pepper, the signing key, the spool and the demo's bundle, which is trained by the first start.
RUN make setup && useradd --create-home protoken && install --directory --owner protoken var
USER protoken
CMD ["make", "serve"]
