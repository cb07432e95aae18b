# The driver with the programs that it runs. `make image` builds it.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=${VERSION}" -o /lvmsnap ./cmd/lvmsnap

FROM debian:bookworm-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      btrfs-progs e2fsprogs lvm2 mount thin-provisioning-tools util-linux xfsprogs \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /lvmsnap /usr/local/bin/lvmsnap
ARG VERSION=unknown
LABEL org.opencontainers.image.title="lvmsnap" \
      org.opencontainers.image.description="CSI driver for LVM volumes and snapshots" \
      org.opencontainers.image.source="https://github.com/lvmsnap/lvmsnap" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENTRYPOINT ["/usr/local/bin/lvmsnap"]
