// Package clients drives a running fastkube with the Go clients that operators are written with: client-go's typed
// clients over protobuf, its dynamic client, informers and leader election, and controller-runtime with a custom
// resource and webhooks. KUBECONFIG says where the server is.
package clients
