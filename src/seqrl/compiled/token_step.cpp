// One token of every row of a decoding session through all layers of a backbone, for `seqrl.compiled.step`.
//
// Threads share rows: a tile of rows goes through all operations of the program while it is warm, and no thread waits
// for another. Vectors are those of GCC (12 or newer) and Clang, as wide as the machine's, so that one source serves
// every processor. The interface is plain C: structures of pointers and sizes, described there.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace {

#if defined(SEQRL_BYTES)
constexpr int kBytes = SEQRL_BYTES;
#elif defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kRows = 6;                           // of a tile of a product, times kVectors vectors: all are registers
constexpr int kVectors = kBytes == 64 ? 4 : 2;     // AVX-512 has twice the registers
constexpr int64_t kTileBytes = 96 * 1024;          // of the widest buffer of a tile: what a core's cache holds beside weights
constexpr int64_t kQueries = 32;                   // whose scores are computed at a time

template <typename T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(kBytes)));
  static constexpr int count = kBytes / sizeof(T);
};
template <typename T>
using Vector = typename Lanes<T>::Vector;
template <typename T>
constexpr int kPanel = kVectors* Lanes<T>::count;  // columns of a packed panel of weights

template <typename T>
inline Vector<T> load(const T* from) {
  Vector<T> found;
  std::memcpy(&found, from, kBytes);
  return found;
}

template <typename T>
inline void store(T* to, const Vector<T>& value) {
  std::memcpy(to, &value, kBytes);
}

// Of every 2 h lanes: the sum of both halves of a's, then of both halves of b's.
template <typename T, int h, std::size_t... I>
inline Vector<T> fold(const Vector<T>& a, const Vector<T>& b, std::index_sequence<I...>) {
  constexpr int lanes = Lanes<T>::count;
  return __builtin_shufflevector(a, b, (I / (2 * h) * 2 * h + I % h + (I % (2 * h) < h ? 0 : lanes))...) +
         __builtin_shufflevector(a, b, (I / (2 * h) * 2 * h + I % h + h + (I % (2 * h) < h ? 0 : lanes))...);
}

// A vector of the sums of as many vectors as it has lanes, which `make(0)`, `make(1)`, ... return.
template <typename T, int h = 1, typename Make>
inline Vector<T> sums(const Make& make, int first = 0) {
  constexpr int lanes = Lanes<T>::count;
  if constexpr (h == lanes) {
    return make(first);
  } else {
    return fold<T, h>(sums<T, 2 * h>(make, first), sums<T, 2 * h>(make, first + h), std::make_index_sequence<lanes>());
  }
}

// e to the power of numbers that are 0 or less, -infinity included.
inline Vector<double> exponential(Vector<double> x) {
  for (int i = 0; i < Lanes<double>::count; ++i) x[i] = std::exp(x[i]);
  return x;
}

// The same in single precision: 2^n e^r with |r| <= log(2) / 2 and the polynomial of Cephes' expf (Moshier 1992).
inline Vector<float> exponential(const Vector<float>& v) {
  typedef int32_t Integers __attribute__((vector_size(kBytes)));
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no digit behind the point
  const Integers small = v < -87.0f;     // the result is no normal number
  const Vector<float> shifted = v * 1.44269504f + kRound;
  const Vector<float> n = shifted - kRound;
  const Vector<float> r = (v - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  Integers bits, exponent;
  std::memcpy(&bits, &p, kBytes);
  std::memcpy(&exponent, &shifted, kBytes);
  bits += exponent << 23;
  std::memcpy(&p, &bits, kBytes);
  return small ? Vector<float>{} : v == v ? p : v;  // what is no number stays none
}

template <typename T>
inline Vector<T> logistic(const Vector<T>& x) {
  const Vector<T> e = exponential(Vector<T>(x < 0 ? x : -x));
  return (x < 0 ? e : e - e + 1) / (e + 1);
}

inline Vector<double> error_function(Vector<double> x) {
  for (int i = 0; i < Lanes<double>::count; ++i) x[i] = std::erf(x[i]);
  return x;
}

// In single precision, to 1.5e-7: x times a polynomial in x^2 near 0, beyond it 1 - e^p(|x|). Both polynomials were fitted
// to the error function (weighted least squares towards the smallest largest error).
inline Vector<float> error_function(const Vector<float>& x) {
  const Vector<float> size = x < 0 ? -x : x;
  const Vector<float> square = x * x;
  Vector<float> near = square * 8.215423121e-05f - 0.000810596496f;
  near = near * square + 0.005197797151f;
  near = near * square - 0.02685810428f;
  near = near * square + 0.1128367255f;
  near = near * square - 0.3761263229f;
  near = near * square + 1.128379166f;
  const Vector<float> t = size < 4.0f ? size : size - size + 4.0f;
  Vector<float> power = t * -2.149612654e-05f + 0.0004391065165f;
  power = power * t - 0.004193611753f;
  power = power * t + 0.02517896948f;
  power = power * t - 0.1083724811f;
  power = power * t - 0.63326261f;
  power = power * t - 1.129556831f;
  power = power * t + 0.0001834443545f;
  const Vector<float> far = 1.0f - exponential(power);
  return size < 0.95f ? x * near : x < 0 ? -far : far;
}

}  // namespace

// What a backbone does to one token, in order. There are a residual stream and a current row; each operation says
// which it reads and writes.
struct Operation {
  int32_t kind;
  int32_t option;
  int64_t inputs, outputs;
  const void* weight;
  const void* bias;
  double epsilon;
};

enum Kind : int32_t {
  kAddPositions,  // stream += row of `weight` at the token's position
  kRmsNorm,       // current = norm of the stream, times `weight`; option 1: stream = ...
  kLayerNorm,     // likewise, plus `bias`
  kTake,          // current = stream
  kLinear,        // current = product with `weight`, plus `bias`, and then as the option says
  kTurnHeads,     // current: norms of query and key heads times `weight` (or null), rotated by `bias` * position
  kAttend,        // current = attention of its queries to the cache of layer `option` and its keys and values
};

enum After : int32_t { kStore, kAddToStream, kGelu, kGeluTanh, kRelu, kGate };

struct Program {
  const Operation* operations;
  int64_t count, dim, widest, heads, kv_heads, head_dim;
};

// Keys and values of consecutive tokens; each of its rows serves as many consecutive rows of the session.
struct Block {
  const uint8_t* visible;  // (rows, stop), or null where all columns may be seen
  int64_t rows, columns, start, stop;
};

// One new token in every row, which attends to the blocks of a cache; or, without blocks, all tokens of a stretch, which
// attend to what a mask shows of those before the stretch and of each other.
struct Step {
  const void* x;             // (rows, tokens, dim)
  const int64_t* positions;  // (rows or 1, tokens)
  int64_t positions_stride;  // tokens or 0
  void* out;                 // (rows, out_width), of the last token; null: keys and values alone
  const void* head;          // packed, or null
  int64_t out_width, rows, tokens;
  const uint8_t* mask;  // of a stretch: (rows or 1, tokens, columns), who may see whom
  int64_t mask_stride;  // tokens * columns or 0
  int64_t columns;      // of a stretch and what is before it
  const Block* blocks;
  int64_t num_blocks;
  void* const* keys;    // (layers, num_blocks) of (kv_heads, rows, columns, head_dim); of a stretch (layers) of (rows,
  void* const* values;  // kv_heads, columns, head_dim), where its own go to the last columns
  int64_t stored;       // whether the new token's go to the last column in use of the last block
  int64_t threads;
};

namespace {

template <typename T>
inline int64_t padded(int64_t width) {
  return (width + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
}

template <typename T, int M, typename Finish>
inline void multiply(const T* a, int64_t stride, const T* panel, int64_t inputs, const Finish& finish) {
  constexpr int lanes = Lanes<T>::count;
  Vector<T> sum[M][kVectors] = {};
  for (int64_t k = 0; k < inputs; ++k, panel += kPanel<T>) {
    Vector<T> b[kVectors];
    for (int v = 0; v < kVectors; ++v) b[v] = load(panel + v * lanes);
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < kVectors; ++v) sum[i][v] += a[i * stride + k] * b[v];
  }
  for (int i = 0; i < M; ++i) finish(i, sum[i]);
}

template <typename T, typename Finish>
void multiply_rows(int64_t rows, const T* a, int64_t stride, const T* weight, int64_t inputs, int64_t panels,
                          const Finish& finish) {
  for (int64_t p = 0; p < panels; ++p, weight += inputs * kPanel<T>) {
    const auto tile = [&](auto size, int64_t r) {
      multiply<T, decltype(size)::value>(a + r * stride, stride, weight, inputs,
                                         [&](int i, const Vector<T>* sum) { finish(r + i, p, sum); });
    };
    int64_t r = 0;
    for (; r + kRows <= rows; r += kRows) tile(std::integral_constant<int, kRows>(), r);
    switch (rows - r) {
      case 5: tile(std::integral_constant<int, 5>(), r); break;
      case 4: tile(std::integral_constant<int, 4>(), r); break;
      case 3: tile(std::integral_constant<int, 3>(), r); break;
      case 2: tile(std::integral_constant<int, 2>(), r); break;
      case 1: tile(std::integral_constant<int, 1>(), r); break;
      default: break;
    }
  }
}

// Of some tokens: what one thread works on.
template <typename T>
struct Tile {
  int64_t first, rows, stride;  // tokens, those of all rows one after the other; `stride` of all but the stream
  int64_t stream_stride;
  T *stream, *current, *next, *scores, *queries;
  int64_t scores_stride;
};

template <typename T>
void linear(const Operation& op, Tile<T>& tile) {
  constexpr int lanes = Lanes<T>::count;
  const T* bias = static_cast<const T*>(op.bias);  // padded as the panels are, or null
  const auto with_bias = [&](int64_t p, const Vector<T>* sum, int v) {
    return bias ? sum[v] + load(bias + p * kPanel<T> + v * lanes) : sum[v];
  };
  const auto run = [&](const auto& finish) {
    multiply_rows<T>(tile.rows, tile.current, tile.stride, static_cast<const T*>(op.weight), op.inputs,
                     (op.outputs + kPanel<T> - 1) / kPanel<T>, finish);
  };
  const auto map = [&](const auto& function) {
    run([&](int64_t r, int64_t p, const Vector<T>* sum) {
      for (int v = 0; v < kVectors; ++v)
        store(tile.next + r * tile.stride + p * kPanel<T> + v * lanes, Vector<T>(function(with_bias(p, sum, v))));
    });
    std::swap(tile.current, tile.next);
  };
  switch (op.option) {
    case kStore: map([](const Vector<T>& x) { return x; }); break;
    case kAddToStream:
      run([&](int64_t r, int64_t p, const Vector<T>* sum) {
        T* to = tile.stream + r * tile.stream_stride + p * kPanel<T>;
        for (int v = 0; v < kVectors; ++v) store(to + v * lanes, Vector<T>(load(to + v * lanes) + with_bias(p, sum, v)));
      });
      break;
    case kGelu:
      map([](const Vector<T>& x) { return x * T(0.5) * (error_function(Vector<T>(x * T(M_SQRT1_2))) + T(1)); });
      break;
    case kGeluTanh:
      map([](const Vector<T>& x) {
        return x * logistic<T>((x + x * x * x * T(0.044715)) * T(2 * M_SQRT2 / 1.7724538509055160273));
      });
      break;
    case kRelu: map([](const Vector<T>& x) { return x < 0 ? x - x : x; }); break;
    case kGate:  // half of a panel's columns are gates, the other half what they let through
      run([&](int64_t r, int64_t p, const Vector<T>* sum) {
        for (int v = 0; v < kVectors / 2; ++v)
          store(tile.next + r * tile.stride + p * kPanel<T> / 2 + v * lanes,
                Vector<T>(sum[v] * logistic<T>(sum[v]) * sum[v + kVectors / 2]));
      });
      std::swap(tile.current, tile.next);
      break;
    default: break;
  }
}

template <typename T>
inline T sum_squares(const T* x, int64_t count, T mean = 0) {
  T found = 0;
#pragma omp simd reduction(+ : found)
  for (int64_t d = 0; d < count; ++d) found += (x[d] - mean) * (x[d] - mean);
  return found;
}

template <typename T>
void norm(const Operation& op, const Tile<T>& tile) {
  const T *gain = static_cast<const T*>(op.weight), *bias = static_cast<const T*>(op.bias);
  const int64_t dim = op.inputs;
  for (int64_t r = 0; r < tile.rows; ++r) {
    T* from = tile.stream + r * tile.stream_stride;
    T* to = op.option ? from : tile.current + r * tile.stride;
    T mean = 0;
    if (op.kind == kLayerNorm) {
#pragma omp simd reduction(+ : mean)
      for (int64_t d = 0; d < dim; ++d) mean += from[d];
      mean /= dim;
    }
    const T scale = 1 / std::sqrt(sum_squares(from, dim, mean) / dim + T(op.epsilon));
    if (bias)
      for (int64_t d = 0; d < dim; ++d) to[d] = (from[d] - mean) * scale * gain[d] + bias[d];
    else
      for (int64_t d = 0; d < dim; ++d) to[d] = (from[d] - mean) * scale * gain[d];
  }
}

inline int64_t position_of(const Step& step, int64_t token) {
  return step.positions[token / step.tokens * step.positions_stride + token % step.tokens];
}

template <typename T>
void turn_heads(const Operation& op, const Program& program, const Step& step, const Tile<T>& tile) {
  const int64_t dim = program.head_dim, heads = program.heads + program.kv_heads;
  const T* gains = static_cast<const T*>(op.weight);
  const double* frequencies = static_cast<const double*>(op.bias);
  T *cos = tile.queries, *sin = tile.queries + dim / 2;  // nobody needs the memory yet
  int64_t known = -1;
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t position = position_of(step, tile.first + r);
    if (position != known)
      for (int64_t d = 0; d < dim / 2; ++d) {
        cos[d] = T(std::cos(position * frequencies[d]));
        sin[d] = T(std::sin(position * frequencies[d]));
      }
    known = position;
    for (int64_t h = 0; h < heads; ++h) {
      T* head = tile.current + r * tile.stride + h * dim;
      if (gains) {
        const T scale = 1 / std::sqrt(sum_squares(head, dim) / dim + T(op.epsilon));
        for (int64_t d = 0; d < dim; ++d) head[d] *= scale * gains[h * dim + d];
      }
      for (int64_t d = 0; d < dim / 2; ++d) {
        const T first = head[d], second = head[d + dim / 2];
        head[d] = first * cos[d] - second * sin[d];
        head[d + dim / 2] = second * cos[d] + first * sin[d];
      }
    }
  }
}

// Scores of `count` queries, side by side, on `width` keys; may write a vector's lanes too many.
template <typename T, int D>
void score(const T* queries, int64_t count, const T* keys, int64_t width, int64_t dim, T* scores, int64_t stride) {
  constexpr int lanes = Lanes<T>::count;
  if constexpr (D == 0) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < width; ++c) {
        T found = 0;
        for (int64_t d = 0; d < dim; ++d) found += queries[i * dim + d] * keys[c * dim + d];
        scores[i * stride + c] = found;
      }
  } else {
    for (int64_t c = 0; c < width; c += lanes) {
      for (int64_t l = 0; l < lanes * D * int64_t(sizeof(T)); l += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(keys + (c + 4 * lanes) * D) + l);
      for (int64_t i = 0; i < count; ++i) {
        const T* q = queries + i * D;
        const T* k = keys + c * D;
        const auto product = [&](int64_t n) {
          Vector<T> found = load(q) * load(k + n * D);
          for (int d = 1; d < D / lanes; ++d) found += load(q + d * lanes) * load(k + n * D + d * lanes);
          return found;
        };
        const int64_t left = width - c - 1;
        store(scores + i * stride + c, left >= lanes - 1 ? sums<T>(product) : sums<T>([&](int n) {
          return product(n < left ? n : left);
        }));
      }
    }
  }
}

// Adds to each of `count` rows of `out` the weighed sum of `width` values.
template <typename T, int D>
void weigh(const T* weights, int64_t stride, int64_t count, const T* values, int64_t width, int64_t dim, T* out) {
  constexpr int lanes = Lanes<T>::count;
  if constexpr (D == 0) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < width; ++c)
        for (int64_t d = 0; d < dim; ++d) out[i * dim + d] += weights[i * stride + c] * values[c * dim + d];
  } else {
    const auto some = [&](auto size, int64_t first) {
      constexpr int N = decltype(size)::value;
      constexpr int part = D / lanes > 4 ? 4 : D / lanes;  // vectors of a head at a time
      for (int from = 0; from < D; from += part * lanes) {
        Vector<T> sum[N][part];
        for (int i = 0; i < N; ++i)
          for (int d = 0; d < part; ++d) sum[i][d] = load(out + (first + i) * D + from + d * lanes);
        for (int64_t c = 0; c < width; ++c)
          for (int d = 0; d < part; ++d) {
            const Vector<T> v = load(values + c * D + from + d * lanes);
            if (d * lanes * sizeof(T) % 64 == 0) __builtin_prefetch(values + (c + 4 * lanes) * D + from + d * lanes);
            for (int i = 0; i < N; ++i) sum[i][d] += weights[(first + i) * stride + c] * v;
          }
        for (int i = 0; i < N; ++i)
          for (int d = 0; d < part; ++d) store(out + (first + i) * D + from + d * lanes, sum[i][d]);
      }
    };
    int64_t i = 0;
    for (; i + 2 <= count; i += 2) some(std::integral_constant<int, 2>(), i);
    if (i < count) some(std::integral_constant<int, 1>(), i);
  }
}

template <typename T>
void softmax(T* row, int64_t width) {
  constexpr int lanes = Lanes<T>::count;
  T top = row[0];
#pragma omp simd reduction(max : top)
  for (int64_t c = 0; c < width; ++c) top = row[c] > top ? row[c] : top;
  for (int64_t c = width; c % lanes; ++c) row[c] = -std::numeric_limits<T>::infinity();
  Vector<T> all{};
  for (int64_t c = 0; c < width; c += lanes) {
    const Vector<T> e = exponential(Vector<T>(load(row + c) - top));
    store(row + c, e);
    all += e;
  }
  T total = 0;
  for (int i = 0; i < lanes; ++i) total += all[i];
  const T scale = 1 / total;
  for (int64_t c = 0; c < width; c += lanes) store(row + c, Vector<T>(load(row + c) * scale));
}

// One key head's queries of `count` rows from `first` of the tile on.
template <typename T, int D>
void attend_head(const Operation& op, const Program& program, const Step& step, const Tile<T>& tile, int64_t head,
                 int64_t first, int64_t count) {
  const int64_t dim = program.head_dim, group = program.heads / program.kv_heads;
  const T scale = 1 / std::sqrt(T(dim));
  for (int64_t r = 0; r < count; ++r) {
    const T* from = tile.current + (first + r) * tile.stride + head * group * dim;
    for (int64_t i = 0; i < group * dim; ++i) tile.queries[r * group * dim + i] = from[i] * scale;
  }
  // Visits rows that share a row of a block: f(block, its number, its row, rows from, count, column).
  const auto each = [&](const auto& visit) {
    int64_t column = 0;
    for (int64_t b = 0; b < step.num_blocks; ++b) {
      const Block& block = step.blocks[b];
      const int64_t descendants = step.rows / block.rows;
      for (int64_t r = 0; r < count;) {
        const int64_t row = (tile.first + first + r) / descendants;
        const int64_t shared = std::min(count, (row + 1) * descendants - tile.first - first) - r;
        visit(b, row, r * group, shared * group, column);
        r += shared;
      }
      column += block.stop - block.start;
    }
    return column;
  };
  const auto at = [&](void* const* blocks, int64_t b, int64_t row) {
    const Block& block = step.blocks[b];
    return static_cast<const T*>(blocks[op.option * step.num_blocks + b]) +
           ((head * block.rows + row) * block.columns + block.start) * dim;
  };
  const int64_t width = each([&](int64_t b, int64_t row, int64_t from, int64_t n, int64_t column) {
    const Block& block = step.blocks[b];
    const int64_t columns = block.stop - block.start;
    T* scores = tile.scores + from * tile.scores_stride + column;
    score<T, D>(tile.queries + from * dim, n, at(step.keys, b, row), columns, dim, scores, tile.scores_stride);
    if (!block.visible) return;
    const uint8_t* visible = block.visible + row * block.stop + block.start;
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t i = 0; i < n && !visible[c]; ++i)
        scores[i * tile.scores_stride + c] = -std::numeric_limits<T>::infinity();
  });
  for (int64_t i = 0; i < count * group; ++i) softmax(tile.scores + i * tile.scores_stride, width);
  std::memset(tile.queries, 0, count * group * dim * sizeof(T));
  each([&](int64_t b, int64_t row, int64_t from, int64_t n, int64_t column) {
    const int64_t columns = step.blocks[b].stop - step.blocks[b].start;
    weigh<T, D>(tile.scores + from * tile.scores_stride + column, tile.scores_stride, n, at(step.values, b, row),
                columns, dim, tile.queries + from * dim);
  });
  for (int64_t r = 0; r < count; ++r)
    std::memcpy(tile.next + (first + r) * tile.stride + head * group * dim, tile.queries + r * group * dim,
                group * dim * sizeof(T));
}

// One key head's queries of `count` tokens from `first` on of one row of the tile, whose tokens are all there.
template <typename T, int D>
void attend_stretch(const Operation& op, const Program& program, const Step& step, const Tile<T>& tile, int64_t head,
                    int64_t row, int64_t first, int64_t count) {
  const int64_t dim = program.head_dim, group = program.heads / program.kv_heads;
  const int64_t sequence = tile.first / step.tokens + row, begin = row * step.tokens + first;
  const T scale = 1 / std::sqrt(T(dim));
  for (int64_t r = 0; r < count; ++r) {
    const T* from = tile.current + (begin + r) * tile.stride + head * group * dim;
    for (int64_t i = 0; i < group * dim; ++i) tile.queries[r * group * dim + i] = from[i] * scale;
  }
  const int64_t at = (sequence * program.kv_heads + head) * step.columns * dim;
  const int64_t width = step.columns - step.tokens + first + count;  // nothing sees what comes later
  score<T, D>(tile.queries, count * group, static_cast<const T*>(step.keys[op.option]) + at, width, dim, tile.scores,
              tile.scores_stride);
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* seen = step.mask + sequence * step.mask_stride + (first + r) * step.columns;
    for (int64_t i = r * group; i < (r + 1) * group; ++i) {
      T* scores = tile.scores + i * tile.scores_stride;
      for (int64_t c = 0; c < width; ++c) scores[c] = seen[c] ? scores[c] : -std::numeric_limits<T>::infinity();
      softmax(scores, width);
    }
  }
  std::memset(tile.queries, 0, count * group * dim * sizeof(T));
  weigh<T, D>(tile.scores, tile.scores_stride, count * group, static_cast<const T*>(step.values[op.option]) + at, width,
              dim, tile.queries);
  for (int64_t r = 0; r < count; ++r)
    std::memcpy(tile.next + (begin + r) * tile.stride + head * group * dim, tile.queries + r * group * dim,
                group * dim * sizeof(T));
}

template <typename T>
void store_keys(const Operation& op, const Program& program, const Step& step, const Tile<T>& tile) {
  const int64_t dim = program.head_dim, kv_heads = program.kv_heads;
  const int64_t last = step.blocks ? step.num_blocks - 1 : 0, number = op.option * (step.blocks ? step.num_blocks : 1) + last;
  T *keys = static_cast<T*>(step.keys[number]), *values = static_cast<T*>(step.values[number]);
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t h = 0; h < kv_heads; ++h) {
      const int64_t token = tile.first + r, row = token / step.tokens;
      const Block* block = step.blocks + last;
      const int64_t to = step.blocks ? (h * block->rows + row) * block->columns + block->stop - 1
                                     : (row * kv_heads + h + 1) * step.columns - step.tokens + token % step.tokens;
      const T* from = tile.current + r * tile.stride + (program.heads + h) * dim;
      std::memcpy(keys + to * dim, from, dim * sizeof(T));
      std::memcpy(values + to * dim, from + kv_heads * dim, dim * sizeof(T));
    }
}

// `last_only`: of a stretch, the last token of each row alone looks, and is all that is left of the tile.
template <typename T>
void attend(const Operation& op, const Program& program, const Step& step, Tile<T>& tile, bool last_only) {
  const int64_t dim = program.head_dim, kv_heads = program.kv_heads, tokens = step.tokens;
  const int64_t most = std::max<int64_t>(1, kQueries / (program.heads / kv_heads));
  const auto run = [&](auto size) {
    constexpr int D = decltype(size)::value;
    if (step.blocks)
      for (int64_t first = 0; first < tile.rows; first += most)
        for (int64_t head = 0; head < kv_heads; ++head)
          attend_head<T, D>(op, program, step, tile, head, first, std::min(most, tile.rows - first));
    else
      for (int64_t row = 0; row < tile.rows / tokens; ++row)
        for (int64_t head = 0; head < kv_heads; ++head)
          for (int64_t first = last_only ? tokens - 1 : 0; first < tokens; first += most)
            attend_stretch<T, D>(op, program, step, tile, head, row, first, std::min(most, tokens - first));
  };
  switch (dim * int64_t(sizeof(T)) % kBytes ? 0 : dim) {
    case 16: run(std::integral_constant<int, 16 * sizeof(T) % kBytes ? 0 : 16>()); break;
    case 32: run(std::integral_constant<int, 32>()); break;
    case 64: run(std::integral_constant<int, 64>()); break;
    case 128: run(std::integral_constant<int, 128>()); break;
    default: run(std::integral_constant<int, 0>()); break;
  }
  std::swap(tile.current, tile.next);
  if (!last_only) return;
  tile.rows /= tokens;
  tile.first /= tokens;
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t from = (r + 1) * tokens - 1;
    std::memmove(tile.stream + r * tile.stream_stride, tile.stream + from * tile.stream_stride,
                 tile.stream_stride * sizeof(T));
    std::memmove(tile.current + r * tile.stride, tile.current + from * tile.stride, tile.stride * sizeof(T));
  }
}

template <typename T>
void run_tile(const Program& program, const Step& step, Tile<T> tile) {
  const int64_t dim = program.dim;
  const T* x = static_cast<const T*>(step.x);
  for (int64_t r = 0; r < tile.rows; ++r)
    std::memcpy(tile.stream + r * tile.stream_stride, x + (tile.first + r) * dim, dim * sizeof(T));
  const Operation* last = program.operations + program.count - 1;  // that attends
  while (last > program.operations && last->kind != kAttend) --last;
  for (const Operation* op = program.operations; op < program.operations + program.count; ++op) {
    switch (op->kind) {
      case kAddPositions:
        for (int64_t r = 0; r < tile.rows; ++r) {
          const T* from = static_cast<const T*>(op->weight) + position_of(step, tile.first + r) * dim;
          for (int64_t d = 0; d < dim; ++d) tile.stream[r * tile.stream_stride + d] += from[d];
        }
        break;
      case kRmsNorm:
      case kLayerNorm: norm(*op, tile); break;
      case kTake:
        for (int64_t r = 0; r < tile.rows; ++r)
          std::memcpy(tile.current + r * tile.stride, tile.stream + r * tile.stream_stride, dim * sizeof(T));
        break;
      case kLinear: linear(*op, tile); break;
      case kTurnHeads: turn_heads(*op, program, step, tile); break;
      case kAttend:
        if (step.stored) store_keys(*op, program, step, tile);
        if (op == last && !step.out) return;
        attend(*op, program, step, tile, op == last && !step.blocks);
        break;
      default: break;
    }
  }
  if (step.head) linear(Operation{kLinear, kStore, dim, step.out_width, step.head, nullptr, 0}, tile);
  T* out = static_cast<T*>(step.out);
  for (int64_t r = 0; r < tile.rows; ++r)
    std::memcpy(out + (tile.first + r) * step.out_width, tile.current + r * tile.stride, step.out_width * sizeof(T));
}

template <typename T>
void run(const Program& program, const Step& step) {
  if (!step.rows) return;
  int64_t width = step.columns;
  for (int64_t b = 0; b < step.num_blocks; ++b) width += step.blocks[b].stop - step.blocks[b].start;
  constexpr int lanes = Lanes<T>::count;
  const int64_t stride = padded<T>(std::max(program.widest, step.out_width)), stream_stride = padded<T>(program.dim);
  // A part is as many rows as a product takes at a time, or a row of a stretch, whose tokens stay together.
  const int64_t all = step.rows * step.tokens, unit = step.blocks ? kRows : step.tokens;
  const int64_t parts = (all + unit - 1) / unit;
  const int64_t most = std::max<int64_t>(1, kTileBytes / int64_t(stride * sizeof(T)) / unit);
  int64_t tiles = (parts + most - 1) / most;
  tiles = std::min(parts, (tiles + step.threads - 1) / step.threads * step.threads);
  const int64_t rows = (parts + tiles - 1) / tiles * unit;
  const int64_t queries = std::max(kQueries, program.heads / program.kv_heads), scores_stride = (width / lanes + 2) * lanes;
#pragma omp parallel num_threads(std::min(tiles, step.threads))
  {
    static thread_local std::vector<T> memory;
    const std::size_t needed =
        rows * (2 * stride + stream_stride) + queries * (program.head_dim + scores_stride) + lanes;
    if (memory.size() < needed) memory.resize(needed);
    T* at = memory.data();
    const auto take = [&](int64_t count) { return std::exchange(at, at + count); };
    Tile<T> tile{};
    tile.stride = stride, tile.stream_stride = stream_stride, tile.scores_stride = scores_stride;
    tile.stream = take(rows * stream_stride);
    tile.current = take(rows * stride);
    tile.next = take(rows * stride);
    tile.queries = take(queries * program.head_dim);
    tile.scores = take(queries * scores_stride);
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < tiles; ++t) {
      tile.first = t * parts / tiles * unit;
      tile.rows = std::min(all, (t + 1) * parts / tiles * unit) - tile.first;
      run_tile(program, step, tile);
    }
  }
}

}  // namespace

extern "C" {
int64_t seqrl_panel_float32() { return kPanel<float>; }
int64_t seqrl_panel_float64() { return kPanel<double>; }
void seqrl_run_float32(const Program* program, const Step* step) { run<float>(*program, *step); }
void seqrl_run_float64(const Program* program, const Step* step) { run<double>(*program, *step); }
}
