# wsi_seg in an image; docs/howto/containers.md says how it is built and run.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

# torch compiles networks for a GPU with gcc. tini hands on the signal that ends a container: Linux
# keeps it from the first process, which would otherwise be killed ten seconds later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 wsi \
    && install --directory --owner=wsi /work

# Address of an index of torch without CUDA, which makes the image some GB smaller; empty takes
# torch as the usual index has it, with what NVIDIA's GPUs need.
ARG TORCH_INDEX=
ARG EXTRAS=all,slurm

# Libraries have a layer of their own, which stays when only the package changes. That index has
# few versions of what torch needs, so torch and torchvision alone come from there.
WORKDIR /opt/wsi-seg
COPY pyproject.toml README.md LICENSE constraints.txt ./
# hadolint ignore=DL3013
RUN mkdir wsi_seg && touch wsi_seg/__init__.py \
    && if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" -c constraints.txt \
            torch torchvision; \
    fi \
    && pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && pip uninstall --yes wsi-seg

COPY wsi_seg ./wsi_seg
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --no-deps .

# A GPU is given by who runs it: docker run --gpus all, or nvidia.com/gpu in Kubernetes.
ENV PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

USER 1000
WORKDIR /work
ENTRYPOINT ["tini", "--", "wsi-seg"]
CMD ["doctor"]
