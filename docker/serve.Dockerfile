# TensorFlow Serving with a run's model inside. The build's context is the run's export folder, which holds the folder 1:
#   docker build -f docker/serve.Dockerfile --build-arg NAME=digits -t digits runs/mlp_digits/export
#   docker run --rm -p 8500:8500 -p 8501:8501 digits
# The model is then at http://localhost:8501/v1/models/digits (REST) and localhost:8500 (gRPC).
# With GPUs: --build-arg VERSION=2.20.0-gpu, and docker run --gpus=all.
ARG VERSION=2.20.0
FROM tensorflow/serving:${VERSION}
ARG NAME=model
# Read by the entry point of this image.
ENV MODEL_NAME=${NAME}
COPY . /models/${NAME}
