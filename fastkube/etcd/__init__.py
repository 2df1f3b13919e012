"""The etcd v3 API (gRPC) in front of the store: tools that are made for etcd work on it."""
