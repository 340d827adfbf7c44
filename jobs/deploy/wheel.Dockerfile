# docker build -f wheel.Dockerfile -t registry.example.com/cvt-batch:0.1.0 .
# Where there is no checkout: beside these files stands cvt_batch-*.whl. The jobs that are submitted
# start in /opt/cvt-batch. BASE has Ray and Python; without a GPU take rayproject/ray:2.60.0-py311-cpu.
ARG BASE=rayproject/ray:2.60.0-py311-gpu
FROM ${BASE}
WORKDIR /opt/cvt-batch
COPY --chown=ray nightly.yaml runtime-env.yaml cvt_batch-*.whl ./
RUN pip install --no-cache-dir "$(ls cvt_batch-*.whl)[cluster]" && rm cvt_batch-*.whl
