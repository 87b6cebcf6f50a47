// pybind11's names, for code that is read and never run: device compiles of files that also bind their kernels to Python.
#pragma once

#include <string>

namespace pybind11 {

struct object {
    template <typename T>
    T cast() const;
    template <typename Name>
    object attr(Name&&) const;
    template <typename... Values>
    object operator()(Values&&...) const;
    template <typename Index>
    object operator[](Index&&) const;
    unsigned long size() const;
    bool is_none() const;
    template <typename T>
    object& operator=(const T&);
    explicit operator bool() const;
};
struct tuple : object {};
struct list : object {};
struct dict : object {};
struct str : object {};
struct function : object {};
struct handle : object {};
struct args : object {};
struct kwargs : object {};
struct bytes : object {};
struct capsule : object {};
struct none : object {};

template <typename Name>
bool hasattr(const object&, Name&&);
template <typename T, typename V>
T cast(V&&);
template <typename T>
bool isinstance(const object&);

struct arg : object {
    explicit arg(const char*);
};
namespace literals {
arg operator""_a(const char*, unsigned long);
}

struct module_ : object {
    object doc() const;
    template <typename... Parts>
    module_& def(Parts&&...);
    module_ def_submodule(const char*, const char* = nullptr);
};
using module = module_;

template <typename T, typename... Options>
struct class_ : object {
    template <typename... Parts>
    class_(Parts&&...);
    template <typename... Parts>
    class_& def(Parts&&...);
    template <typename... Parts>
    class_& def_readwrite(Parts&&...);
};
template <typename... Arguments>
struct init {};

}  // namespace pybind11

// A function that nothing calls; what it says of the module is not compiled further.
#define PYBIND11_MODULE(name, variable) \
    template <typename HktuneModule>    \
    void hktune_module_##name(HktuneModule& variable)
