//go:build kubelet

// Package cluster has kubelet's modules in go.mod, without kubelet among the tools that every `make e2e` builds.
package cluster

import _ "k8s.io/kubernetes/cmd/kubelet/app"
