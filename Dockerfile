# Tunedesk's image, for linux/arm64 and linux/amd64, built with BuildKit; assets/container/README.md has the commands.
#   VARIANT=npu   Ascend 910B: CANN 9.1.0, torch 2.12.0, torch-npu 2.12.0 (the default)
#   VARIANT=cuda  NVIDIA: torch with the CUDA libraries that it brings
#   VARIANT=cpu   no accelerator
ARG VARIANT=npu
ARG BASE_NPU=quay.io/ascend/cann:9.1.0-910b-ubuntu22.04-py3.12
ARG BASE_CUDA=python:3.12-slim-bookworm
ARG BASE_CPU=python:3.12-slim-bookworm

FROM ${BASE_NPU} AS base-npu
# What the base has for building is removed, but for its compiler: CANN compiles operators when they are first used, and
# without the compiler's headers a matrix product fails (https://github.com/Ascend/pytorch/issues/74).
RUN DEBIAN_FRONTEND=noninteractive apt-get purge -y build-essential cmake make git
ENV ASCEND_WORK_PATH=/workspace/cache/ascend \
    ASCEND_CACHE_PATH=/workspace/cache/ascend

FROM ${BASE_CUDA} AS base-cuda
# Triton compiles a launcher for each of its kernels when it first runs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${BASE_CPU} AS base-cpu

# hadolint ignore=DL3006
FROM base-${VARIANT}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates tini \
    && rm -rf /var/lib/apt/lists/*

# What changes least comes first: torch, then the other packages, then the source. All are wheels: nothing is compiled.
ARG VARIANT
ARG PIP_INDEX_URL
ARG TORCH_INDEX
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
ARG PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/tunedesk
COPY assets/container/packages.py assets/container/
COPY constraints.txt pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 assets/container/packages.py "$VARIANT" /tmp/packages \
    && python3 -m pip install --only-binary=:all: --no-deps -r /tmp/packages/torch.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --only-binary=:all: -c /tmp/packages/constraints.txt -r /tmp/packages/requirements.txt

COPY . .
RUN python3 -m pip install --no-cache-dir --no-index --no-deps --no-build-isolation -e . \
    && python3 -m compileall -q app trainer \
    && groupadd --gid 1000 tunedesk \
    && useradd --uid 1000 --gid 1000 --create-home tunedesk \
    && install -d -m 0777 /workspace \
    && chmod -R a+rX . \
    && rm -rf /tmp/packages

# One folder, to be mounted, for all that lasts. `docker run --user` may give any number.
WORKDIR /workspace
ENV HOME=/home/tunedesk \
    HF_HOME=/workspace/cache/huggingface \
    MODELSCOPE_CACHE=/workspace/cache/modelscope \
    MPLCONFIGDIR=/workspace/cache/matplotlib \
    PYTHONUNBUFFERED=1 \
    TUNEDESK_DATA_DIR=/workspace/data \
    TUNEDESK_RUNS_DIR=/workspace/runs
USER 1000:1000
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/bin/bash", "/opt/tunedesk/assets/container/health.sh"]
# It reaps, and passes signals on to one process alone: a trainer of several is ended by the first of them.
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/bin/bash", "/opt/tunedesk/assets/container/entrypoint.sh"]
CMD ["webui"]
