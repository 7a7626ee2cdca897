# The one image of aldaas: all its programs, in /usr/local/bin. Each workload of the chart names the one it runs.
#
#   docker build -t aldaas .                         from source; podman and buildah take the same
#   hack/image build --prebuilt                      with programs that were built on this machine, and no registry
#
# It keeps to what docker's classic builder, podman and buildah have in common.

# Compiles. With PROGRAMS=prebuilt it only takes target/image/bin, and any Debian does for it.
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm
# What the programs run on: Debian 12, or what has the same libraries.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
ARG PROGRAMS=source
ARG PROFILE=release
WORKDIR /src
COPY . .
RUN hack/lib/image-programs.sh "$PROGRAMS" "$PROFILE" /out

# Libraries: librbd and librados. Programs that ours call: mkfs, fsck and modprobe. The rest is aldaas itself.
FROM ${BASE_IMAGE} AS runtime
RUN apt-get update -q \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    ca-certificates e2fsprogs kmod librados2 librbd1 xfsprogs \
  && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig /var/log/* /usr/share/man/* /usr/share/locale/* \
  && find /usr/share/doc -type f ! -name copyright -delete \
  && groupadd --system --gid 65532 aldaas \
  && useradd --system --uid 65532 --gid 65532 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin aldaas
COPY --from=build /out/ /usr/local/bin/

# What is in it, as CycloneDX: Debian's packages, the crates that we link, our programs.
FROM runtime AS sbom
ARG VERSION=0.0.0
ARG CREATED=1970-01-01T00:00:00Z
COPY Cargo.lock hack/lib/image-sbom.sh /src/
RUN sh /src/image-sbom.sh "$VERSION" "$CREATED" /src/Cargo.lock >/sbom.json

FROM runtime
ARG BASE_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
COPY --from=sbom /sbom.json /usr/share/doc/aldaas/sbom.json
COPY LICENSE /usr/share/doc/aldaas/copyright
# A program that does not find its libraries is found here, not on the node.
RUN for program in aldaas aldaas-csi aldaas-fuse aldaas-ingest aldaas-restore aldaas-webhook; do \
    "$program" --version || exit 1; \
  done
LABEL org.opencontainers.image.title="aldaas" \
  org.opencontainers.image.description="A writable copy of a production-like database for every pod, in about a second" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}" \
  org.opencontainers.image.created="${CREATED}" \
  org.opencontainers.image.base.name="${BASE_IMAGE}"
# The webhook and the controller run as this user. The node's workloads say that they are root: they mount.
USER 65532:65532
WORKDIR /
CMD ["aldaas", "--help"]
