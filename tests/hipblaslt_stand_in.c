/* A stand-in for AMD's libhipblaslt: its functions as hipblaslt.h and hipblaslt-ext.hpp (ROCm 7.2.4) say, on matrices in
 * host memory. The C++ functions have the names of the Itanium C++ ABI, and fill libstdc++'s std::vector and
 * std::string. Whatever it is given that it did not make ends the process, as it may in the library. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 3, NOT_SUPPORTED = 7 };
enum { R_32F = 0, R_16F = 2, R_8I = 3, R_32I = 10, R_16BF = 14, R_8F_E4M3 = 28, R_8F_E5M2 = 29 };
enum { COMPUTE_32F = 2, COMPUTE_32I = 9, OP_N = 111, OP_T = 112, EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4, SCALE_VEC = 3 };
enum { TRANSA = 0, TRANSB, EPILOGUE, BIAS_POINTER, BIAS_TYPE, A_SCALE, B_SCALE, A_MODE = 31, B_MODE = 32 };
enum { HANDLE = 0x4841, DESC = 0x4445, LAYOUT = 0x4c41, PREFERENCE = 0x5052, SOLUTIONS = 8, USES = 4096 };

typedef struct { int kind; } handle_t;
typedef struct {
    int kind, compute, scale, ops[2], bias_type, modes[2];
    uint32_t epilogue;
    const void *bias, *scales[2];
} desc_t;
typedef struct { int kind, type; uint64_t rows, columns; int64_t leading; } layout_t;
typedef struct { int kind; uint64_t workspace_bytes; } preference_t;
typedef struct { uint8_t data[16]; size_t max_workspace_bytes; } algo_t;
typedef struct { algo_t algo; size_t workspace_bytes; int state; float waves; int reserved[4]; } result_t;
typedef struct { result_t *begin, *end, *room_end; } vector_t;
typedef struct { char *text; size_t length; char own[16]; } string_t;

/* What a test sets and reads. `factor` is what a solution multiplies the right product by. */
typedef struct { int index; char name[4096]; size_t workspace_bytes; float factor; int fits; } solution_t;
solution_t stand_in_solutions[SOLUTIONS];
int stand_in_count, stand_in_version, stand_in_uses, stand_in_used[USES];
long stand_in_objects, stand_in_allocated;
char stand_in_revision[64];
void *stand_in_stream;

static void fatal(const char *what) { fprintf(stderr, "the stand-in was given %s\n", what); abort(); }

static void *made(size_t size, int kind)
{
    int *object = calloc(1, size);
    *object = kind;
    __atomic_add_fetch(&stand_in_objects, 1, __ATOMIC_RELAXED);
    return object;
}

static int destroyed(int *object, int kind)
{
    if (!object || *object != kind) fatal("an object to destroy that it did not make");
    *object = 0;
    free(object);
    __atomic_sub_fetch(&stand_in_objects, 1, __ATOMIC_RELAXED);
    return SUCCESS;
}

static void check(const void *object, int kind) { if (!object || *(const int *)object != kind) fatal("an object of another kind"); }

int hipblasLtCreate(void **handle) { *handle = made(sizeof(handle_t), HANDLE); return SUCCESS; }
int hipblasLtDestroy(void *handle) { return destroyed(handle, HANDLE); }
int hipblasLtGetVersion(void *handle, int *version) { check(handle, HANDLE); *version = stand_in_version; return SUCCESS; }
int hipblasLtGetGitRevision(void *handle, char *text) { check(handle, HANDLE); strcpy(text, stand_in_revision); return SUCCESS; }
int hipblasLtMatmulDescDestroy(void *desc) { return destroyed(desc, DESC); }
int hipblasLtMatrixLayoutDestroy(void *layout) { return destroyed(layout, LAYOUT); }
int hipblasLtMatmulPreferenceDestroy(void *preference) { return destroyed(preference, PREFERENCE); }
int hipblasLtMatmulPreferenceCreate(void **preference) { *preference = made(sizeof(preference_t), PREFERENCE); return SUCCESS; }

int hipblasLtMatmulDescCreate(desc_t **desc, int compute, int scale)
{
    if (!((compute == COMPUTE_32F && scale == R_32F) || (compute == COMPUTE_32I && scale == R_32I))) return NOT_SUPPORTED;
    *desc = made(sizeof(desc_t), DESC);
    (*desc)->compute = compute;
    (*desc)->scale = scale;
    (*desc)->ops[0] = (*desc)->ops[1] = OP_N;
    (*desc)->epilogue = EPILOGUE_DEFAULT;
    (*desc)->bias_type = -1;
    return SUCCESS;
}

int hipblasLtMatmulDescSetAttribute(desc_t *desc, int attribute, const void *value, size_t size)
{
    struct { int attribute; size_t size; void *field; } fields[] = {
        { TRANSA, 4, &desc->ops[0] },     { TRANSB, 4, &desc->ops[1] },     { EPILOGUE, 4, &desc->epilogue },
        { BIAS_POINTER, 8, &desc->bias }, { BIAS_TYPE, 4, &desc->bias_type }, { A_SCALE, 8, &desc->scales[0] },
        { B_SCALE, 8, &desc->scales[1] }, { A_MODE, 4, &desc->modes[0] },   { B_MODE, 4, &desc->modes[1] },
    };
    check(desc, DESC);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].attribute == attribute && fields[i].size == size) {
            memcpy(fields[i].field, value, size);
            return SUCCESS;
        }
    return INVALID_VALUE;
}

int hipblasLtMatrixLayoutCreate(layout_t **layout, int type, uint64_t rows, uint64_t columns, int64_t leading)
{
    if (leading < (int64_t)rows) return INVALID_VALUE;
    *layout = made(sizeof(layout_t), LAYOUT);
    (*layout)->type = type;
    (*layout)->rows = rows;
    (*layout)->columns = columns;
    (*layout)->leading = leading;
    return SUCCESS;
}

int hipblasLtMatmulPreferenceSetAttribute(preference_t *preference, int attribute, const void *value, size_t size)
{
    check(preference, PREFERENCE);
    if (attribute != 1 || size != 8) return INVALID_VALUE;
    memcpy(&preference->workspace_bytes, value, 8);
    return SUCCESS;
}

static solution_t *solution_of(const algo_t *algo)
{
    int index;
    memcpy(&index, algo->data, sizeof index);
    for (int i = 0; i < stand_in_count; i++)
        if (stand_in_solutions[i].index == index) return &stand_in_solutions[i];
    fatal("an algorithm that it does not have");
    return 0;
}

static int small(int type) { return type == R_8F_E4M3 || type == R_8F_E5M2; }

/* Whether there are solutions for factors and outputs of these types. */
static int known(int a, int b, int c, int d, int compute)
{
    if (c != d) return 0;
    if (compute == COMPUTE_32I) return a == R_8I && b == R_8I && d == R_32I;
    if (small(a) && small(b)) return d == R_16BF || d == R_16F || d == R_32F;
    return compute == COMPUTE_32F && a == b && (a == R_32F || a == R_16F || a == R_16BF) && (d == a || d == R_32F);
}

/* Whether op(A) op(B) has the shape of C and D, and the types are known. */
static int consistent(const desc_t *desc, const layout_t *a, const layout_t *b, const layout_t *c, const layout_t *d)
{
    check(desc, DESC), check(a, LAYOUT), check(b, LAYOUT), check(c, LAYOUT), check(d, LAYOUT);
    uint64_t m = desc->ops[0] == OP_T ? a->columns : a->rows, k = desc->ops[0] == OP_T ? a->rows : a->columns;
    uint64_t n = desc->ops[1] == OP_T ? b->rows : b->columns, inner = desc->ops[1] == OP_T ? b->columns : b->rows;
    if (desc->epilogue != EPILOGUE_DEFAULT && (desc->epilogue != EPILOGUE_BIAS || desc->bias_type != d->type)) return 0;
    return k == inner && c->rows == m && d->rows == m && c->columns == n && d->columns == n
        && known(a->type, b->type, c->type, d->type, desc->compute);
}

static void fill(result_t *result, const solution_t *solution, size_t max_workspace_bytes)
{
    memset(result, 0, sizeof *result);
    memcpy(result->algo.data, &solution->index, sizeof solution->index);
    result->algo.max_workspace_bytes = max_workspace_bytes;
    result->waves = 1.0f;
}

/* Its favourite is the last of its solutions. */
int hipblasLtMatmulAlgoGetHeuristic(handle_t *handle, desc_t *desc, layout_t *a, layout_t *b, layout_t *c, layout_t *d,
                                    preference_t *preference, int asked, result_t *found, int *count)
{
    check(handle, HANDLE), check(preference, PREFERENCE);
    *count = 0;
    if (asked < 1 || !consistent(desc, a, b, c, d)) return INVALID_VALUE;
    for (int i = stand_in_count - 1; i >= stand_in_count / 2 && *count < asked; i--)
        if (stand_in_solutions[i].fits && stand_in_solutions[i].workspace_bytes <= preference->workspace_bytes)
            fill(&found[(*count)++], &stand_in_solutions[i], preference->workspace_bytes);
    return *count ? SUCCESS : NOT_SUPPORTED;
}

void *allocated(size_t size) { __atomic_add_fetch(&stand_in_allocated, 1, __ATOMIC_RELAXED); return malloc(size); }
void operator_delete(void *memory) __asm__("_ZdlPv");
void operator_delete(void *memory)
{
    if (memory) __atomic_sub_fetch(&stand_in_allocated, 1, __ATOMIC_RELAXED);
    free(memory);
}

int all_algorithms(handle_t *handle, int kind, int op_a, int op_b, int a, int b, int c, int d, int compute, vector_t *found) __asm__(
    "_ZN13hipblaslt_ext11getAllAlgosEPvNS_8GemmTypeE18hipblasOperation_tS2_11hipDataTypeS3_S3_S3_20hipblasComputeType_t"
    "RSt6vectorI33_hipblasLtMatmulHeuristicResult_tSaIS6_EE");
int all_algorithms(handle_t *handle, int kind, int op_a, int op_b, int a, int b, int c, int d, int compute, vector_t *found)
{
    check(handle, HANDLE);
    if (kind != 1 || (op_a != OP_N && op_a != OP_T) || (op_b != OP_N && op_b != OP_T)) return INVALID_VALUE;
    if (!known(a, b, c, d, compute)) return INVALID_VALUE;
    operator_delete(found->begin);
    found->begin = allocated((size_t)(stand_in_count + 3) * sizeof(result_t));
    for (int i = 0; i < stand_in_count; i++) fill(&found->begin[i], &stand_in_solutions[i], (size_t)-1);
    found->end = found->begin + stand_in_count;
    found->room_end = found->end + 3;
    return SUCCESS;
}

int index_of(algo_t *algo) __asm__("_ZN13hipblaslt_ext16getIndexFromAlgoER22_hipblasLtMatmulAlgo_t");
int index_of(algo_t *algo) { return solution_of(algo)->index; }

string_t *name_of(string_t *answer, handle_t *handle, algo_t *algo) __asm__(
    "_ZN13hipblaslt_ext23getSolutionNameFromAlgoB5cxx11EPvR22_hipblasLtMatmulAlgo_t");
string_t *name_of(string_t *answer, handle_t *handle, algo_t *algo)
{
    check(handle, HANDLE);
    const char *name = solution_of(algo)->name;
    answer->length = strlen(name);
    answer->text = answer->length < sizeof answer->own ? answer->own : allocated(answer->length + 1);
    memcpy(answer->text, name, answer->length + 1);
    return answer;
}

int supported(handle_t *handle, desc_t *desc, const void *alpha, layout_t *a, layout_t *b, const void *beta, layout_t *c,
              layout_t *d, algo_t *algo, size_t *workspace_bytes) __asm__(
    "_ZN13hipblaslt_ext21matmulIsAlgoSupportedEPvP27hipblasLtMatmulDescOpaque_tPKvP29hipblasLtMatrixLayoutOpaque_t"
    "S6_S4_S6_S6_R22_hipblasLtMatmulAlgo_tRm");
int supported(handle_t *handle, desc_t *desc, const void *alpha, layout_t *a, layout_t *b, const void *beta, layout_t *c,
              layout_t *d, algo_t *algo, size_t *workspace_bytes)
{
    check(handle, HANDLE);
    if (!alpha || !beta || !consistent(desc, a, b, c, d) || !solution_of(algo)->fits) return INVALID_VALUE;
    *workspace_bytes = solution_of(algo)->workspace_bytes;
    return SUCCESS;
}

static double of_small(uint8_t bits, int exponent_bits, int bias)
{
    int significand_bits = 7 - exponent_bits, exponent = (bits >> significand_bits) & ((1 << exponent_bits) - 1);
    double value = (bits & ((1 << significand_bits) - 1)) / (double)(1 << significand_bits) + (exponent ? 1 : 0);
    for (int i = bias - (exponent ? exponent : 1); i > 0; i--) value /= 2;
    for (int i = exponent - bias; i > 0; i--) value *= 2;
    return bits & 0x80 ? -value : value;
}

static double loaded(const void *memory, int type, size_t place)
{
    uint32_t wide;
    float value;
    switch (type) {
    case R_32F: return ((const float *)memory)[place];
    case R_16F: return ((const _Float16 *)memory)[place];
    case R_16BF: wide = (uint32_t)((const uint16_t *)memory)[place] << 16; memcpy(&value, &wide, 4); return value;
    case R_8I: return ((const int8_t *)memory)[place];
    case R_32I: return ((const int32_t *)memory)[place];
    case R_8F_E4M3: return of_small(((const uint8_t *)memory)[place], 4, 7);
    default: return of_small(((const uint8_t *)memory)[place], 5, 15);
    }
}

static void stored(void *memory, int type, size_t place, double number)
{
    float value = (float)number;
    uint32_t wide;
    memcpy(&wide, &value, 4);
    switch (type) {
    case R_32F: ((float *)memory)[place] = value; break;
    case R_16F: ((_Float16 *)memory)[place] = (_Float16)value; break;
    case R_16BF: ((uint16_t *)memory)[place] = (uint16_t)((wide + 0x7fff + ((wide >> 16) & 1)) >> 16); break;
    default: ((int32_t *)memory)[place] = (int32_t)number;
    }
}

static double scale(const desc_t *desc, int which, size_t place)
{
    const float *factors = desc->scales[which];
    return !factors ? 1.0 : factors[desc->modes[which] == SCALE_VEC ? place : 0];
}

static double number(const void *host, int compute) { return compute == COMPUTE_32I ? *(const int32_t *)host : *(const float *)host; }

int hipblasLtMatmul(handle_t *handle, desc_t *desc, const void *alpha, const void *A, layout_t *a, const void *B, layout_t *b,
                    const void *beta, const void *C, layout_t *c, void *D, layout_t *d, const algo_t *algo, void *workspace,
                    size_t workspace_bytes, void *stream)
{
    check(handle, HANDLE);
    const solution_t *solution = solution_of(algo);
    if (!consistent(desc, a, b, c, d) || !solution->fits) return INVALID_VALUE;
    if (algo->max_workspace_bytes < solution->workspace_bytes || workspace_bytes < solution->workspace_bytes) return NOT_SUPPORTED;
    if (solution->workspace_bytes && !workspace) return INVALID_VALUE;
    memset(workspace, 0x5a, solution->workspace_bytes);
    size_t k = desc->ops[0] == OP_T ? a->rows : a->columns;
    for (size_t i = 0; i < d->rows; i++)
        for (size_t j = 0; j < d->columns; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++)
                sum += loaded(A, a->type, desc->ops[0] == OP_T ? l + i * a->leading : i + l * a->leading)
                     * loaded(B, b->type, desc->ops[1] == OP_T ? j + l * b->leading : l + j * b->leading);
            sum *= number(alpha, desc->compute) * solution->factor * scale(desc, 0, i) * scale(desc, 1, j);
            if (number(beta, desc->compute) != 0) sum += number(beta, desc->compute) * loaded(C, c->type, i + j * c->leading);
            if (desc->epilogue == EPILOGUE_BIAS) sum += loaded(desc->bias, desc->bias_type, i);
            stored(D, d->type, i + j * d->leading, sum);
        }
    stand_in_stream = stream;
    stand_in_used[__atomic_fetch_add(&stand_in_uses, 1, __ATOMIC_RELAXED) % USES] = solution->index;
    return SUCCESS;
}
