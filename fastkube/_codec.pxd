# What other cores see of the reader; its methods are told in _codec.pyx.

cdef class _Reader:
    cdef bytes source
    cdef Py_ssize_t at
    cdef Py_ssize_t end
    cdef unsigned long long number
    cdef object parts
    cdef int step(self) except? -1
    cdef int _long_head(self, unsigned char head) except? -1
    cdef int _big_endian(self, int width) except? -1
    cdef unsigned long long little_endian(self) except *
    cdef int _signed(self, int width) except? -1
    cdef int _string(self, unsigned long long length) except? -1
    cdef Py_ssize_t key(self) except? -1
    cdef bint is_next(self, Py_ssize_t length, bytes text) noexcept
    cdef bint is_small(self) noexcept
    cdef int skip(self) except? -1
    cdef bint find(self, bytes key) except *
    cdef object text(self, Py_ssize_t length)
