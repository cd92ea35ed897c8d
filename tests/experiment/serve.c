/* One request to a SavedModel by TensorFlow's C interface, which knows no Python.

       serve FOLDER INPUT... -- OUTPUT...

   INPUT    OPERATION:INDEX:TYPE:SHAPE:FILE, with TYPE the number of a TF_DataType and SHAPE like 2x28x28x1
   OUTPUT   OPERATION:INDEX:FILE; the file begins with a line TYPE:SHAPE
   Files hold plain elements in the order of memory; each string is 8 bytes of length and its bytes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>
#include <tensorflow/c/tf_tstring.h>

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(TF_Status *status) {
  if (TF_GetCode(status) != TF_OK) fail("TensorFlow", TF_Message(status));
}

static char *field(char **rest) { return strsep(rest, ":"); }

static TF_Output output(TF_Graph *graph, char **rest) {
  char *name = field(rest);
  TF_Operation *operation = TF_GraphOperationByName(graph, name);
  if (!operation) fail("no operation of this name", name);
  return (TF_Output){operation, atoi(field(rest))};
}

static void read_all(void *to, size_t size, FILE *file) {
  if (fread(to, 1, size, file) != size) fail("a file of an input", "too short");
}

static TF_Tensor *input(char *rest) {
  TF_DataType type = atoi(field(&rest));
  char *shape = field(&rest);
  int64_t dims[8], elements = 1;
  int rank = 0;
  for (char *dim; *shape && (dim = strsep(&shape, "x"));) {
    elements *= dims[rank++] = atoll(dim);
    if (!shape) break;
  }
  FILE *file = fopen(rest, "rb");
  if (!file) fail("cannot open", rest);
  size_t size = type == TF_STRING ? sizeof(TF_TString) : TF_DataTypeSize(type);
  TF_Tensor *tensor = TF_AllocateTensor(type, dims, rank, elements * size);
  if (type != TF_STRING) {
    read_all(TF_TensorData(tensor), elements * size, file);
  } else {
    TF_TString *strings = TF_TensorData(tensor);
    for (int64_t i = 0; i < elements; i++) {
      uint64_t length;
      read_all(&length, sizeof length, file);
      char *bytes = malloc(length + 1);
      read_all(bytes, length, file);
      TF_StringInit(&strings[i]);
      TF_StringCopy(&strings[i], bytes, length);
      free(bytes);
    }
  }
  fclose(file);
  return tensor;
}

static void write_tensor(const TF_Tensor *tensor, const char *path) {
  FILE *file = fopen(path, "wb");
  if (!file) fail("cannot write", path);
  fprintf(file, "%d:", TF_TensorType(tensor));
  for (int i = 0; i < TF_NumDims(tensor); i++) fprintf(file, "%s%" PRId64, i ? "x" : "", TF_Dim(tensor, i));
  fputc('\n', file);
  if (TF_TensorType(tensor) != TF_STRING) {
    fwrite(TF_TensorData(tensor), 1, TF_TensorByteSize(tensor), file);
  } else {
    const TF_TString *strings = TF_TensorData(tensor);
    for (int64_t i = 0; i < TF_TensorElementCount(tensor); i++) {
      uint64_t length = TF_StringGetSize(&strings[i]);
      fwrite(&length, sizeof length, 1, file);
      fwrite(TF_StringGetDataPointer(&strings[i]), 1, length, file);
    }
  }
  if (fclose(file)) fail("cannot write", path);
}

int main(int count, char **arguments) {
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, arguments[1], tags, 1, graph, NULL,
                                                     status);
  check(status);
  TF_Output inputs[8], outputs[8];
  TF_Tensor *given[8], *found[8];
  char *paths[8];
  int i = 2, n = 0, m = 0;
  for (; i < count && strcmp(arguments[i], "--"); i++, n++) {
    char *rest = arguments[i];
    inputs[n] = output(graph, &rest);
    given[n] = input(rest);
  }
  for (i++; i < count; i++, m++) {
    char *rest = arguments[i];
    outputs[m] = output(graph, &rest);
    paths[m] = rest;
  }
  TF_SessionRun(session, NULL, inputs, given, n, outputs, found, m, NULL, 0, NULL, status);
  check(status);
  for (int k = 0; k < m; k++) write_tensor(found[k], paths[k]);
  return 0;
}
