"""MVCC on LMDB with etcd's semantics; knows nothing about Kubernetes."""
