#pragma once
#include "pybind11.h"

namespace pybind11 {
template <typename T, int flags = 0>
struct array_t : object {
    T* mutable_data();
    const T* data() const;
};
struct array : object {};
}  // namespace pybind11
