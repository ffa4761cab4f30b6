// What decoding does between the dense products on a CPU, for `seqrl.backbones.kernels`, where the contracts stand.
//
// One token of a few hundred rows is little work on little memory. As separate tensor operations most of its time goes
// to starting them, to many small products, and to results that leave the processor in between. Here a few queries that
// read the same keys stay in registers for scores and values, and a norm or a gate is one pass.
//
// Vectors are those of GCC (12 or newer) and Clang, so that one source serves every processor.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

constexpr int kBytes = 64;
constexpr int kQueries = 8;  // of a unit of work, that read the same keys one after the other while these are at hand

template <typename T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(kBytes)));
  typedef T Half __attribute__((vector_size(kBytes / 2)));
  typedef T Quarter __attribute__((vector_size(kBytes / 4)));
  static constexpr int count = kBytes / sizeof(T);
};

template <typename T>
using Vector = typename Lanes<T>::Vector;

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

template <typename T>
inline T sum(const Vector<T>& value) {
  typename Lanes<T>::Half half[2];
  std::memcpy(half, &value, kBytes);
  half[0] += half[1];
  typename Lanes<T>::Quarter quarter[2];
  std::memcpy(quarter, half, kBytes / 2);
  quarter[0] += quarter[1];
  T total = 0;
  for (int i = 0; i < Lanes<T>::count / 4; ++i) total += quarter[0][i];
  return total;
}

// Of every 2 h lanes: the sum of both halves of a's, then of both halves of b's.
template <typename T, int h, std::size_t... I>
inline Vector<T> fold(const Vector<T>& a, const Vector<T>& b, std::index_sequence<I...>) {
  constexpr int lanes = Lanes<T>::count;
  return __builtin_shufflevector(a, b, (I / (2 * h) * 2 * h + I % h + (I % (2 * h) < h ? 0 : lanes))...) +
         __builtin_shufflevector(a, b, (I / (2 * h) * 2 * h + I % h + h + (I % (2 * h) < h ? 0 : lanes))...);
}

// A vector of the sums of as many vectors as it has lanes, which `make(0)`, `make(1)`, ... return: in a tree of folds,
// each sum costs a fraction of what it costs by itself.
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
inline void exponentials(double* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = std::exp(x[i]);
}

// The same in single precision: 2^n e^r with |r| <= log(2) / 2 and the polynomial of Cephes' expf (Moshier 1992).
inline void exponentials(float* x, int64_t count) {
  typedef int32_t Integers __attribute__((vector_size(kBytes)));
  constexpr int lanes = Lanes<float>::count;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no digit behind the point
  for (int64_t i = 0; i < count; i += lanes) {
    const Vector<float> v = load(x + i);
    const Integers small = v < -87.0f;  // the result is no normal number
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
    store(x + i, small ? Vector<float>{} : v == v ? p : v);  // what is no number stays none
  }
}

template <typename T>
inline Vector<T> logistic(const Vector<T>& x) {
  T powers[Lanes<T>::count];
  store(powers, Vector<T>(x < 0 ? x : -x));
  exponentials(powers, Lanes<T>::count);
  const Vector<T> e = load(powers);
  return (x < 0 ? e : e - e + 1) / (e + 1);
}

// Below so many numbers, starting the other threads costs more than they save.
constexpr int64_t kLeast = 16384;

template <typename T>
void rms_norm(const T* x, const T* gain, T* out, int64_t rows, int64_t dim, T epsilon, int threads) {
#pragma omp parallel for schedule(static) num_threads(rows* dim < kLeast ? 1 : threads)
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = x + r * dim;
    T* to = out + r * dim;
    T squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t d = 0; d < dim; ++d) squares += from[d] * from[d];
    const T scale = 1 / std::sqrt(squares / dim + epsilon);
    for (int64_t d = 0; d < dim; ++d) to[d] = from[d] * scale * gain[d];
  }
}

template <typename T>
void norm_and_rotate(T* x, const T* gains, const T* cos, const T* sin, int64_t rows, int64_t stride, int64_t heads,
                     int64_t dim, int64_t angles_stride, T epsilon, int threads) {
#pragma omp parallel for schedule(static) num_threads(rows* heads* dim < kLeast ? 1 : threads)
  for (int64_t r = 0; r < rows; ++r) {
    const T *c = cos + r * angles_stride, *s = sin + r * angles_stride;
    for (int64_t h = 0; h < heads; ++h) {
      T* head = x + r * stride + h * dim;
      if (gains) {
        T squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t d = 0; d < dim; ++d) squares += head[d] * head[d];
        const T scale = 1 / std::sqrt(squares / dim + epsilon);
        for (int64_t d = 0; d < dim; ++d) head[d] *= scale * gains[h * dim + d];
      }
      for (int64_t d = 0; d < dim / 2; ++d) {
        const T first = head[d], second = head[d + dim / 2];
        head[d] = first * c[d] + second * s[d];
        head[d + dim / 2] = second * c[d + dim / 2] + first * s[d + dim / 2];
      }
    }
  }
}

// Rows of `gate` and `up` lie `stride` numbers apart, those of `out` side by side.
template <typename T>
void gate(const T* gate, const T* up, T* out, int64_t rows, int64_t stride, int64_t dim, int threads) {
  constexpr int lanes = Lanes<T>::count;
#pragma omp parallel for schedule(static) num_threads(rows* dim < kLeast ? 1 : threads)
  for (int64_t r = 0; r < rows; ++r) {
    const T *g = gate + r * stride, *u = up + r * stride;
    T* to = out + r * dim;
    int64_t d = 0;
    for (; d + lanes <= dim; d += lanes) {
      const Vector<T> x = load(g + d);
      store(to + d, x * logistic<T>(x) * load(u + d));
    }
    for (; d < dim; ++d) to[d] = g[d] / (1 + std::exp(-g[d])) * u[d];
  }
}

}  // namespace

// Keys and values of consecutive tokens; each of its rows serves as many consecutive rows of the session.
struct Block {
  const void* keys;        // (kv_heads, rows, columns, dim)
  const void* values;      // the same
  const uint8_t* visible;  // (rows, stop), or null where all columns may be seen
  int64_t rows, columns, start, stop;
};

// Of new tokens, one per row; rows of queries, keys and values lie `stride` numbers apart.
struct Step {
  const void* query;  // (rows, kv_heads * group, dim)
  const void* key;    // (rows, kv_heads, dim); null where nothing is to be stored
  const void* value;
  void* out;  // (rows, kv_heads * group, dim)
  int64_t query_stride, key_stride, value_stride;
  int64_t rows, kv_heads, group, dim;
};

namespace {

// N queries, in consecutive rows of `queries`, on `width` keys; the scores lie `stride` apart.
template <typename T, int D, int N>
inline void score(const T* queries, const T* keys, int64_t width, T* scores, int64_t stride) {
  constexpr int lanes = Lanes<T>::count;
  Vector<T> q[N][D / lanes];
  for (int i = 0; i < N; ++i)
    for (int d = 0; d < D / lanes; ++d) q[i][d] = load(queries + i * D + d * lanes);
  const auto products = [&](int i, const T* key) {
    Vector<T> found = q[i][0] * load(key);
    for (int d = 1; d < D / lanes; ++d) found += q[i][d] * load(key + d * lanes);
    return found;
  };
  constexpr int together = lanes / N;
  int64_t c = 0;
  for (; c + together <= width; c += together) {
    const Vector<T> found =
        sums<T>([&](int n) { return products(n / together, keys + (c + n % together) * D); });
    for (int i = 0; i < N; ++i)
      std::memcpy(scores + i * stride + c, reinterpret_cast<const T*>(&found) + i * together, together * sizeof(T));
  }
  for (; c < width; ++c)
    for (int i = 0; i < N; ++i) scores[i * stride + c] = sum<T>(products(i, keys + c * D));
}

// Adds N sums of `width` values, weighted, to consecutive rows of `sums`.
template <typename T, int D, int N>
inline void add(const T* weights, int64_t stride, const T* values, int64_t width, T* sums) {
  constexpr int lanes = Lanes<T>::count;
  Vector<T> s[N][D / lanes];
  for (int i = 0; i < N; ++i)
    for (int d = 0; d < D / lanes; ++d) s[i][d] = load(sums + i * D + d * lanes);
  for (int64_t c = 0; c < width; ++c)
    for (int d = 0; d < D / lanes; ++d) {
      const Vector<T> v = load(values + c * D + d * lanes);
      for (int i = 0; i < N; ++i) s[i][d] += weights[i * stride + c] * v;
    }
  for (int i = 0; i < N; ++i)
    for (int d = 0; d < D / lanes; ++d) store(sums + i * D + d * lanes, s[i][d]);
}

// Four at a time while there are as many, then two, then one: `tile(N, i)` does N from i on.
template <typename Tile>
inline void in_tiles(int64_t i, int64_t end, const Tile& tile) {
  for (; i + 4 <= end; i += 4) tile(std::integral_constant<int, 4>(), i);
  for (; i + 2 <= end; i += 2) tile(std::integral_constant<int, 2>(), i);
  for (; i < end; ++i) tile(std::integral_constant<int, 1>(), i);
}

// The queries of one key head in `count` rows from `first` on, which have at least their widest block's row in common.
template <typename T, int D>
void attend_unit(const Block* blocks, int64_t num_blocks, const Step& step, int64_t head, int64_t first, int64_t count,
                 int64_t stride, T* memory) {
  const int64_t group = step.group, total = count * group;
  T* queries = memory;           // (total, D), later the results
  T* scores = memory + total * D;  // (total, stride)
  const T scale = 1 / std::sqrt(T(D));
  for (int64_t r = 0; r < count; ++r) {
    const T* from = static_cast<const T*>(step.query) + (first + r) * step.query_stride + head * group * D;
    for (int64_t i = 0; i < group * D; ++i) queries[r * group * D + i] = from[i] * scale;
  }
  auto each = [&](auto&& visit) {  // rows of the unit with the block's row that they share
    int64_t column = 0;
    for (int64_t b = 0; b < num_blocks; ++b) {
      const Block& block = blocks[b];
      const int64_t descendants = step.rows / block.rows, shared = descendants < count ? descendants : count;
      for (int64_t r = 0; r < count; r += shared) {
        const int64_t row = (first + r) / descendants;
        visit(block, row, ((head * block.rows + row) * block.columns + block.start) * D, r * group, shared * group,
              column);
      }
      column += block.stop - block.start;
    }
    return column;
  };
  const int64_t width = each([&](const Block& block, int64_t row, int64_t offset, int64_t i, int64_t n, int64_t column) {
    const T* keys = static_cast<const T*>(block.keys) + offset;
    const int64_t columns = block.stop - block.start;
    in_tiles(i, i + n, [&](auto size, int64_t q) {
      score<T, D, decltype(size)::value>(queries + q * D, keys, columns, scores + q * stride + column, stride);
    });
    if (!block.visible) return;
    const uint8_t* visible = block.visible + row * block.stop + block.start;
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t q = i; q < i + n && !visible[c]; ++q)
        scores[q * stride + column + c] = -std::numeric_limits<T>::infinity();
  });
  for (int64_t i = 0; i < total; ++i) {
    T* row = scores + i * stride;
    T top = row[0];
    for (int64_t c = 1; c < width; ++c) top = row[c] > top ? row[c] : top;
    for (int64_t c = 0; c < width; ++c) row[c] -= top;
    for (int64_t c = width; c < stride; ++c) row[c] = -std::numeric_limits<T>::infinity();
    exponentials(row, stride);
    Vector<T> sums{};
    for (int64_t c = 0; c < stride; c += Lanes<T>::count) sums += load(row + c);
    const T whole = 1 / sum<T>(sums);
    for (int64_t c = 0; c < stride; ++c) row[c] *= whole;
  }
  std::memset(queries, 0, total * D * sizeof(T));
  each([&](const Block& block, int64_t, int64_t offset, int64_t i, int64_t n, int64_t column) {
    const T* values = static_cast<const T*>(block.values) + offset;
    const int64_t columns = block.stop - block.start;
    in_tiles(i, i + n, [&](auto size, int64_t q) {
      add<T, D, decltype(size)::value>(scores + q * stride + column, stride, values, columns, queries + q * D);
    });
  });
  for (int64_t r = 0; r < count; ++r)
    std::memcpy(static_cast<T*>(step.out) + ((first + r) * step.kv_heads + head) * group * D, queries + r * group * D,
                group * D * sizeof(T));
}

template <typename T, int D>
void attend(const Block* blocks, int64_t num_blocks, const Step& step, int threads) {
  int64_t width = 0, widest = 0, most = 1;
  for (int64_t b = 0; b < num_blocks; ++b) {
    const int64_t columns = blocks[b].stop - blocks[b].start;
    width += columns;
    if (columns < widest) continue;
    widest = columns;
    most = step.rows / blocks[b].rows;
  }
  // Rows of a unit: as many as share the widest block, of whose keys there are most, within limits; and of every other
  // block, all of them share one row or they are whole families.
  const auto fits = [&](int64_t count) {
    for (int64_t b = 0; b < num_blocks; ++b) {
      const int64_t descendants = step.rows / blocks[b].rows;
      if (descendants % count && count % descendants) return false;
    }
    return most % count == 0 && count * step.group <= kQueries;
  };
  int64_t count = most < kQueries ? most : kQueries;
  while (count > 1 && !fits(count)) --count;
  constexpr int lanes = Lanes<T>::count;
  const int64_t stride = (width + lanes - 1) / lanes * lanes, units = step.rows / count;
  const Block& newest = blocks[num_blocks - 1];
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> memory(count * step.group * (D + stride));
#pragma omp for schedule(static)
    for (int64_t u = 0; u < step.kv_heads * units; ++u) {
      const int64_t head = u / units, first = u % units * count;
      for (int64_t r = first; r < first + count && step.key; ++r) {
        const int64_t at = ((head * newest.rows + r) * newest.columns + newest.stop - 1) * D;
        const T* key = static_cast<const T*>(step.key) + r * step.key_stride + head * D;
        const T* value = static_cast<const T*>(step.value) + r * step.value_stride + head * D;
        std::memcpy(static_cast<T*>(const_cast<void*>(newest.keys)) + at, key, D * sizeof(T));
        std::memcpy(static_cast<T*>(const_cast<void*>(newest.values)) + at, value, D * sizeof(T));
      }
      attend_unit<T, D>(blocks, num_blocks, step, head, first, count, stride, memory.data());
    }
  }
}

template <typename T>
bool attend_any(const Block* blocks, int64_t num_blocks, const Step& step, int threads) {
  switch (step.dim) {
    case 8: if constexpr (sizeof(T) == 8) return attend<T, 8>(blocks, num_blocks, step, threads), true; else return false;
    case 16: return attend<T, 16>(blocks, num_blocks, step, threads), true;
    case 32: return attend<T, 32>(blocks, num_blocks, step, threads), true;
    case 64: return attend<T, 64>(blocks, num_blocks, step, threads), true;
    case 128: return attend<T, 128>(blocks, num_blocks, step, threads), true;
    default: return false;
  }
}

}  // namespace

#define SEQRL_KERNELS(T, NAME)                                                                                        \
  bool seqrl_attend_##NAME(const Block* blocks, int64_t num_blocks, const Step* step, int threads) {                  \
    return attend_any<T>(blocks, num_blocks, *step, threads);                                                         \
  }                                                                                                                   \
  bool seqrl_rms_norm_##NAME(const T* x, const T* gain, T* out, int64_t rows, int64_t dim, double epsilon,            \
                             int threads) {                                                                           \
    rms_norm<T>(x, gain, out, rows, dim, T(epsilon), threads);                                                        \
    return true;                                                                                                      \
  }                                                                                                                   \
  bool seqrl_norm_and_rotate_##NAME(T* x, const T* gains, const T* cos, const T* sin, int64_t rows, int64_t stride,   \
                                    int64_t heads, int64_t dim, int64_t angles_stride, double epsilon, int threads) { \
    norm_and_rotate<T>(x, gains, cos, sin, rows, stride, heads, dim, angles_stride, T(epsilon), threads);             \
    return true;                                                                                                      \
  }                                                                                                                   \
  bool seqrl_gate_##NAME(const T* gated, const T* up, T* out, int64_t rows, int64_t stride, int64_t dim,              \
                         int threads) {                                                                               \
    gate<T>(gated, up, out, rows, stride, dim, threads);                                                              \
    return true;                                                                                                      \
  }

extern "C" {
SEQRL_KERNELS(float, float32)
SEQRL_KERNELS(double, float64)
}
