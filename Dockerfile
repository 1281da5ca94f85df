# The image: one static program and nothing else. `docker build -t egret .`
#
# For builds that are to give the same octets the dependencies are locked, no path of the build is in the program, and no clock is read;
# what is left is the toolchain, with the path that it keeps sources at: give TOOLCHAIN by its digest (deploy/README.md).
ARG TOOLCHAIN=rust:1.95-bookworm
FROM ${TOOLCHAIN} AS build
WORKDIR /src
COPY . .
RUN cargo dist --locked

FROM scratch
LABEL org.opencontainers.image.title="egret" \
      org.opencontainers.image.description="An egress gateway for containers that have no host" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/egret /egret
# Nobody, by number: there is no file of users. Trust roots are in the program; it writes no file unless told to.
USER 65534:65534
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s --retries=3 CMD ["/egret", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/egret"]
CMD ["run"]
