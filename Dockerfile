# seqrl on CPUs, at the versions of constraints.txt.
#
#   docker build -t seqrl .
#   docker run --rm -v "$PWD/runs:/home/seqrl/runs" -v "$DATA:/data:ro" seqrl train data=d4rl data.path=/data/hopper-medium.hdf5
#
# For GPUs, leave the line with the CPU index out; the default build of torch brings CUDA.
FROM python:3.11-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    MUJOCO_GL=egl

# Drawing MuJoCo's scenes without a screen.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libopengl0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY conf conf
COPY src src
RUN pip install --constraint constraints.txt .

RUN useradd --create-home --uid 1000 seqrl && mkdir /home/seqrl/runs && chown seqrl:seqrl /home/seqrl/runs
USER 1000
WORKDIR /home/seqrl
ENTRYPOINT ["seqrl"]
CMD ["--help"]
