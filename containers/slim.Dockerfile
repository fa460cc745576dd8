# The service of one exported classifier, without torch.
#   docker build -f containers/slim.Dockerfile -t metaformer:slim .
#   docker run --rm -p 127.0.0.1:8000:8000 -e METAFORMER_KEYS -v ./models:/models:ro metaformer:slim /models/first.onnx
ARG BASE=python:3.12-slim-trixie

FROM ${BASE} AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/metaformer PATH=/opt/metaformer/bin:$PATH
RUN pip install --no-cache-dir uv==0.13.8 && uv venv "$VIRTUAL_ENV"
WORKDIR /build
COPY requirements.lock LICENSE ./
COPY slim slim
COPY src src
RUN --mount=type=cache,target=/root/.cache/uv uv pip install --constraints requirements.lock ./slim

FROM ${BASE}
LABEL org.opencontainers.image.title="metaformer-slim" \
      org.opencontainers.image.description="One exported MetaFormer classifier as an HTTP service" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent metaformer
COPY --from=build /opt/metaformer /opt/metaformer
ENV PATH=/opt/metaformer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /models
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --start-interval=1s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["metaformer-slim", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--help"]
