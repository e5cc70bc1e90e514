//go:build tools

// Package tools names the commands that `cargo xtask setup` builds from the
// pinned modules of this folder's go.mod and go.sum.
package tools

import (
	_ "go.etcd.io/etcd/etcdutl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
