# The driver with the programs that it runs: `make image` builds it, `make image-test` does so without a registry.
# Why the LVM in it, and why Debian: docs/adr/0017.
FROM docker.io/library/golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=${VERSION}" -o /out/ ./cmd/lvmsnap ./cmd/lvmsnapctl

FROM docker.io/library/debian:bookworm-slim
# One layer without what differs from one build to the next (logs, caches, dpkg's backups), nor documentation.
# LVM has no daemons here, and must not look for them: the driver's own lvm.conf sees to that (docs/adr/0006).
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      btrfs-progs e2fsprogs lvm2 mount thin-provisioning-tools util-linux xfsprogs \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* /var/lib/dpkg/*-old /etc/lvm/backup /etc/lvm/archive /etc/machine-id \
      /usr/share/doc /usr/share/man /usr/share/locale \
 && mkdir -p /csi /run/lvmsnap /run/lock/lvm /run/udev
COPY --from=build /out/ /usr/local/bin/
ARG VERSION=unknown
LABEL org.opencontainers.image.title="lvmsnap" \
      org.opencontainers.image.description="CSI driver for LVM volumes and snapshots" \
      org.opencontainers.image.source="https://github.com/lvmsnap/lvmsnap" \
      org.opencontainers.image.documentation="https://github.com/lvmsnap/lvmsnap/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# Root: it opens disks, speaks to device-mapper and mounts (docs/explanation/privileges.md).
USER 0:0
ENTRYPOINT ["/usr/local/bin/lvmsnap"]
