// ---------------------------------------------------------------- which kernel runs a shape

// One row of the table that this file was made from: rows of C from m_from to m_to, and the kernel that was chosen.
struct table_row { int64_t m_from, m_to, n, k; bool biased; int kernel; };

constexpr table_row TABLE[] = {
${rows}
};
constexpr int NO_KERNEL = -1;

// How far a row's problem is from this one; 0 is the very shape.
inline double distance(const table_row &row, int64_t m, int64_t n, int64_t k, bool biased) {
    const int64_t row_m = m < row.m_from ? row.m_from : m > row.m_to ? row.m_to : m;
    const auto apart = [](int64_t x, int64_t y) { return std::fabs(std::log(double(x) / double(y))); };
    return apart(m, row_m) + apart(n, row.n) + apart(k, row.k) + (biased == row.biased ? 0.0 : 1e-3);
}

// The kernel of the nearest row that can run the shape; every kernel computes every shape that its `can_run` takes.
inline int choose_kernel(int64_t m, int64_t n, int64_t k, bool biased) {
    int chosen = NO_KERNEL;
    double least = std::numeric_limits<double>::infinity();
    for (const table_row &row : TABLE) {
        const double away = distance(row, m, n, k, biased);
        if (away < least && can_run(row.kernel, m, n, k)) {
            least = away;
            chosen = row.kernel;
        }
    }
    return chosen;
}
