package lvm_test

import (
	"sync/atomic"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// countingRunner counts the processes that are started.
type countingRunner struct {
	hostexec.Runner
	starts atomic.Int64
}

func (r *countingRunner) Start(c hostexec.Command) (*hostexec.Process, error) {
	r.starts.Add(1)
	return r.Runner.Start(c)
}
