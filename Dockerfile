# The explorer in a container. docs/serving.md shows how to build and run it.
FROM python:3.12-slim

# What pip finds by itself runs on CPUs and on NVIDIA GPUs. A package index with torch's CPU build saves 5 GB.
ARG INDEX=""

WORKDIR /opt/explorer
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY explorer explorer
COPY precompute precompute
COPY pages pages
COPY assets assets
RUN pip install --no-cache-dir --no-input pip==25.3 && \
    pip install --no-cache-dir --no-input ${INDEX:+--extra-index-url "$INDEX"} \
        --constraint constraints.txt --build-constraint constraints.txt .

# Nobody of the machine outside; what it keeps lies in /data, models that it fetches in /models.
RUN useradd --create-home explorer && mkdir /data /models && chown explorer /data /models
USER explorer
ENV RAPIDIN_DATA=/data RAPIDIN_CACHE=/models HF_HOME=/models/hub
VOLUME ["/data", "/models"]

EXPOSE 8501
ENTRYPOINT ["rapidin-explorer"]
CMD ["demo", "--address", "0.0.0.0"]
