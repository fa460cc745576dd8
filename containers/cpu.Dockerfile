# The service on processors, with every model and every runtime that `auto` may choose.
#   docker build -f containers/cpu.Dockerfile -t metaformer:cpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -e METAFORMER_KEYS -v ./models:/models:ro metaformer:cpu /models/first.onnx
ARG BASE=python:3.12-slim-trixie

FROM ${BASE} AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/metaformer PATH=/opt/metaformer/bin:$PATH
RUN pip install --no-cache-dir uv==0.13.8 && uv venv "$VIRTUAL_ENV"
WORKDIR /build
COPY pyproject.toml requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --torch-backend cpu --constraints requirements.lock --requirements pyproject.toml --extra serve \
    onnx onnxruntime onnxscript openvino simplejpeg
COPY README.md LICENSE ./
COPY src src
RUN --mount=type=cache,target=/root/.cache/uv uv pip install --no-deps .

FROM ${BASE}
LABEL org.opencontainers.image.title="metaformer" \
      org.opencontainers.image.description="MetaFormer models as an HTTP service, on processors" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --home-dir /cache metaformer && install --directory --owner metaformer /cache
COPY --from=build /opt/metaformer /opt/metaformer
ENV PATH=/opt/metaformer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    METAFORMER_CACHE=/cache/metaformer HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache MPLCONFIGDIR=/cache/matplotlib
USER 10001
WORKDIR /models
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --start-interval=1s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["metaformer", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--help"]
