# tunrouter's image: the agent, its command line, and the CNI plugins that it puts on hosts. docs/image.md tells the rest.
#
#   docker build .   or   buildah build .      where a registry answers
#   make image                                 where none does, and for the archive (image/build)
#
# Law: what a build needs stays in its stage. The last one is a single layer of files, without a package manager, a compiler
# or anything of the build host: settings come as secrets, for the time of one command.
ARG BASE=docker.io/library/debian:bookworm-slim

# --- portmap, bandwidth, loopback -----------------------------------------------------------------------------------
# Debian's are linked with its libc, which hosts may not have. These are the same sources, and need nothing.
FROM ${BASE} AS plugins
RUN --mount=type=secret,id=apt.conf \
    export APT_CONFIG=/run/secrets/apt.conf DEBIAN_FRONTEND=noninteractive \
    && { grep -hs '^deb ' /etc/apt/sources.list | sed 's/^deb /deb-src /' >/etc/apt/sources.list.d/sources.list; \
         sed -i 's/^Types: deb$/Types: deb deb-src/' /etc/apt/sources.list.d/*.sources 2>/dev/null; \
         apt-get -q update; } \
    && apt-get -q install -y --no-install-recommends dpkg-dev golang-go golang-github-containernetworking-plugins-dev \
        golang-github-mattn-go-shellwords-dev golang-github-networkplumbing-go-nft-dev \
    && mkdir -p /build/src/github.com/containernetworking && cd /build \
    && apt-get -q source --only-source golang-github-containernetworking-plugins \
    && mv golang-github-containernetworking-plugins-*/ src/github.com/containernetworking/plugins \
    && cd src/github.com/containernetworking/plugins && mkdir -p /plugins/cni \
    && CGO_ENABLED=0 GO111MODULE=off GOPATH=/build:/usr/share/gocode GOCACHE=/build/cache \
        go build -trimpath -ldflags '-s -w' -o /plugins/cni ./plugins/meta/portmap ./plugins/meta/bandwidth ./plugins/main/loopback \
    && cp LICENSE /plugins/cni/LICENSE \
    && dpkg-query --show --showformat '${source:Package} ${source:Version}\n' 'golang-*' | grep ' .' | sort -u >/plugins/sources \
    && rm -rf /build /var/lib/apt/lists

# --- the program ----------------------------------------------------------------------------------------------------
FROM ${BASE} AS program
RUN --mount=type=secret,id=apt.conf \
    export APT_CONFIG=/run/secrets/apt.conf DEBIAN_FRONTEND=noninteractive \
    && apt-get -q update && apt-get -q install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists
COPY setup.cfg image/requirements.py /source/
# The libraries first: they change less often than the program.
RUN --mount=type=secret,id=pip.conf \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_DISABLE_PIP_VERSION_CHECK=1 \
    && python3 -m venv /pip && python3 -m venv --without-pip /opt/tunrouter \
    && python3 /source/requirements.py </source/setup.cfg >/source/requirements.txt \
    && /pip/bin/pip --python /opt/tunrouter/bin/python install -q --no-cache-dir --no-compile -r /source/requirements.txt
COPY setup.cfg setup.py pyproject.toml MANIFEST.in README.md LICENSE /source/
COPY cni-plugin /source/cni-plugin
COPY tunrouter /source/tunrouter
RUN --mount=type=secret,id=pip.conf \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_DISABLE_PIP_VERSION_CHECK=1 \
    && /pip/bin/pip --python /opt/tunrouter/bin/python install -q --no-cache-dir --no-compile --no-deps /source \
    && find /opt/tunrouter -name '*.so' -exec strip --strip-unneeded {} + \
    && /opt/tunrouter/bin/python -c 'import tunrouter.dataplane._kernel' \
    && test -x /opt/tunrouter/lib/python3*/site-packages/tunrouter/edge/tunrouter-cni

# --- what it runs on ------------------------------------------------------------------------------------------------
FROM ${BASE} AS system
COPY image/slim /build/slim
RUN --mount=type=secret,id=apt.conf \
    export APT_CONFIG=/run/secrets/apt.conf DEBIAN_FRONTEND=noninteractive \
    && apt-get -q update && apt-get -q upgrade -y \
    && apt-get -q install -y --no-install-recommends iptables libpython3-stdlib nftables python3-minimal \
    && /build/slim
COPY --from=plugins /plugins/sources /build/sources
COPY --from=plugins /plugins/cni /opt/tunrouter/cni
COPY --from=program /opt/tunrouter /opt/tunrouter
COPY image/sbom.py image/assemble /build/
RUN /build/assemble /image

# --- the image ------------------------------------------------------------------------------------------------------
FROM scratch AS image
ARG VERSION=0 REVISION=unknown BASE
COPY --from=system /image /
LABEL name="tunrouter" \
    org.opencontainers.image.title="tunrouter" \
    org.opencontainers.image.description="One flat, encrypted network for every container on every host, from one shared password" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.vendor="tunrouter" \
    org.opencontainers.image.base.name="${BASE}"
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
# Root with few capabilities (docs/image.md says which, and why); what needs none of them runs as anybody.
ENTRYPOINT ["/usr/local/bin/tunrouter"]
CMD ["--help"]
