//go:build lab

package lvm_test

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

func TestContractExec(t *testing.T) {
	env := labConfig(t)
	RunContract(t, func(t *testing.T) fixture {
		return labFixture(t, lvm.Exec{Runner: hostexec.Host{}, Env: env})
	})
}

func TestContractShell(t *testing.T) {
	env := labConfig(t)
	RunContract(t, func(t *testing.T) fixture {
		runner := &countingRunner{Runner: hostexec.Host{}}
		f := labFixture(t, newLabShell(t, runner, env))
		t.Cleanup(func() {
			if n := runner.starts.Load(); n > 3 && !t.Failed() && !strings.HasSuffix(t.Name(), "MetadataFull") /* its lines are too long */ {
				t.Errorf("%d processes were started: the shell was not used", n)
			}
		})
		return f
	})
}

// labConfig makes the driver's private configuration.
func labConfig(t *testing.T) []string {
	t.Helper()
	labtest.Require(t)
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func newLabShell(t *testing.T, runner hostexec.Runner, env []string) *lvm.Shell {
	t.Helper()
	shell := lvm.NewShell(runner, env)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := shell.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return shell
}

func labFixture(t *testing.T, exec lvm.Executor) fixture {
	t.Helper()
	group := labtest.VolumeGroup(t, labtest.Options{
		ThinPool: poolName, PoolSize: strconv.Itoa(poolBytes) + "b", PoolMetadataSize: strconv.Itoa(poolMetadata) + "b",
		ChunkSize: strconv.Itoa(poolChunk) + "b",
	})
	kernel := &dm.Control{}
	t.Cleanup(func() {
		if err := kernel.Close(); err != nil {
			t.Error(err)
		}
	})
	return fixture{
		exec: exec, client: lvm.NewClient(exec, group.Name), kernel: kernel, group: group.Name,
		write: func(t *testing.T, lv, data string) { writeDevice(t, group.Device(lv), data) },
		read:  func(t *testing.T, lv string) string { return readDevice(t, group.Device(lv)) },
		overwrite: func(t *testing.T, lv string, size int) {
			t.Helper()
			writeBlocks(t, group.Device(lv), bytes.Repeat([]byte("x"), size))
		},
		open: func(t *testing.T, lv string) func() {
			t.Helper()
			f, err := os.Open(group.Device(lv))
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		},
		plain: func(t *testing.T, lv string, sizeBytes int64) {
			t.Helper()
			labtest.Run(t, "lvcreate", "-y", "-L", strconv.FormatInt(sizeBytes, 10)+"b", "-n", lv, group.Name)
		},
		fill: func(t *testing.T) {
			t.Helper()
			labtest.Run(t, "lvchange", "--errorwhenfull", "y", group.Name+"/"+poolName)
			labtest.Run(t, "lvcreate", "-V", "1g", "--thinpool", poolName, "-n", "filler", group.Name)
			f, err := os.OpenFile(group.Device("filler"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			chunk := bytes.Repeat([]byte("full"), mib/4)
			for range poolBytes/mib + 1 {
				if _, err = f.Write(chunk); err != nil {
					break
				}
			}
			_ = f.Sync() // the pool fills up in the middle of it
			_ = f.Close()
		},
	}
}

const blockBytes = 4096

func writeDevice(t *testing.T, path, data string) {
	t.Helper()
	block := make([]byte, blockBytes)
	copy(block, data)
	writeBlocks(t, path, block)
}

func writeBlocks(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func readDevice(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, blockBytes)
	if _, err := f.ReadAt(block, 0); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(block, "\x00"))
}
