# Training, from the root of the project:
#   docker build -f docker/train.Dockerfile -t congruent .
#   docker run --rm -v "$PWD/runs:/congruent/runs" congruent --model=cnn
FROM python:3.11-slim
WORKDIR /congruent
COPY . .
# Extras, with brackets: --build-arg EXTRAS=[text] for subwords.
ARG EXTRAS=
RUN pip install --no-cache-dir --editable ".${EXTRAS}"
ENTRYPOINT ["python", "train.py"]
CMD ["--model=cnn"]
