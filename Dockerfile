# Two stages: the toolchain builds, and what runs holds the binary, libhiredis, OpenSSL and what every Debian has.

FROM swift:6.3-bookworm AS build
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends libhiredis-dev libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /sluice
# Dependencies change less often than sources: a layer of their own.
COPY Package.* ./
RUN swift package resolve
COPY Sources Sources
# The package names its test targets, so their folders must be there; they are not built.
COPY Tests Tests
RUN swift build -c release --static-swift-stdlib --product sluice -Xlinker --strip-all \
    && cp "$(swift build -c release --show-bin-path)/sluice" /usr/local/bin/sluice

FROM debian:bookworm-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends libhiredis0.14 libssl3 zlib1g ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sluice
COPY --from=build /usr/local/bin/sluice /usr/local/bin/sluice
COPY configs/gateway.yaml /etc/sluice/gateway.yaml
USER 10001
EXPOSE 8080 9901
# bash opens the connection itself, so that the image needs no HTTP client. A node needs gateway.admin on this port.
ENV HEALTH_PORT=9901 HEALTH_PATH=/healthz
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["bash", "-c", "\
    exec 3<>/dev/tcp/127.0.0.1/$HEALTH_PORT \
    && printf 'GET %s HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' \"$HEALTH_PATH\" >&3 \
    && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["sluice"]
CMD ["run", "--config", "/etc/sluice/gateway.yaml", "--set", "gateway.admin=127.0.0.1:9901"]
