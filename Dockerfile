# wsi_seg in an image; docs/howto/containers.md says how it is built and run.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

# Address of an index of torch without CUDA, which makes the image some GB smaller; empty takes
# torch as the usual index has it, with what NVIDIA's GPUs need.
ARG TORCH_INDEX=
# For GPUs of one machine: --build-arg EXTRAS=all,slurm,cuda
ARG EXTRAS=all,slurm

WORKDIR /opt/wsi-seg
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY wsi_seg ./wsi_seg

# Versions are pinned by the tested ones of constraints.txt.
# hadolint ignore=DL3013
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_INDEX" -c constraints.txt torch; \
    fi \
    && pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && useradd --create-home --uid 1000 wsi

# A GPU is given by who runs it: docker run --gpus all, or nvidia.com/gpu in Kubernetes.
ENV PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

USER 1000
WORKDIR /work
ENTRYPOINT ["wsi-seg"]
CMD ["doctor"]
