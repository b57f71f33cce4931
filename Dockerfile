# The image: one static binary, and what it needs of a system. It has no shell, no libraries and no user but a number.
#
#   docker build --tag epochgate --build-arg REVISION="$(git rev-parse --short=12 HEAD)" .
#
# Each architecture is built on its own: a builder of several runs this once for each. docs/build.md says how a binary is
# built again; for this one besides, `+crt-static`, which is what makes it static.
ARG RUST=1.95-bookworm

FROM rust:${RUST} AS compile
RUN apt-get update && apt-get install --yes --no-install-recommends protobuf-compiler libprotobuf-dev
WORKDIR /epochgate
COPY . .
ARG REVISION=
# glibc and not musl, so that it is the code that docs/performance.md measures. Since 2.34 its resolver needs no library,
# and no nsswitch.conf: it asks /etc/hosts, then DNS.
RUN export CARGO_ENCODED_RUSTFLAGS="$(printf -- '-Ctarget-feature=+crt-static\037--remap-path-prefix=%s=/cargo' "$CARGO_HOME")" \
      CFLAGS="-ffile-prefix-map=$CARGO_HOME=/cargo" CARGO_INCREMENTAL=0 EPOCHGATE_REVISION="$REVISION" \
    && target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --locked --release --bin epochgate --target "$target" \
    && install -D "target/$target/release/epochgate" /built/epochgate \
    && mkdir /built/empty

# What an image is made of: a folder of one's own stands for it with `--build-context compiled=FOLDER`.
FROM scratch AS compiled
COPY --from=compile /built /

FROM scratch
COPY --from=compiled /epochgate /usr/local/bin/epochgate
# Where a state directory goes that nobody has mounted (what is in it goes with the container), and what a demo needs.
COPY --from=compiled --chown=65532:65532 /empty /var/lib/epochgate
COPY --from=compiled --chown=65532:65532 /empty /tmp
ENV PATH=/usr/local/bin STATE_DIRECTORY=/var/lib/epochgate
# A number: the kubelet can tell that it is not root's without a list of users.
USER 65532:65532
LABEL org.opencontainers.image.title=epochgate \
      org.opencontainers.image.description="A fencing sidecar proxy: no write of an old leader is applied after a write of a new one." \
      org.opencontainers.image.licenses=Apache-2.0
ENTRYPOINT ["/usr/local/bin/epochgate"]
