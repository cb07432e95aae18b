//go:build lab

package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// churn writes and renames files until stop is called, which says how many it has finished. A file without the
// suffix .tmp is whole.
func churn(u *use) (stop func() int) {
	quit, done := make(chan struct{}), make(chan struct{})
	var finished int
	var failure error
	go func() {
		defer close(done)
		for failure == nil {
			select {
			case <-quit:
				return
			default:
			}
			failure = churnOnce(u.target, finished)
			finished++
		}
	}()
	return func() int {
		close(quit)
		<-done
		if failure != nil {
			u.t.Errorf("%s: the writer: %v", u.name, failure)
		}
		return finished
	}
}

const churnFiles = 40

// churnOnce replaces one of the files, and adds a directory entry to be removed later.
func churnOnce(dir string, n int) error {
	path := filepath.Join(dir, fmt.Sprintf("churn%d", n%churnFiles))
	err := writeFile(path+".tmp", churnContent(n))
	return errors.Join(err,
		os.Rename(path+".tmp", path),
		os.MkdirAll(filepath.Join(dir, fmt.Sprintf("dir%d", n), "deep"), 0o755),
		os.RemoveAll(filepath.Join(dir, fmt.Sprintf("dir%d", n-10))))
}

func churnContent(n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d\n", n), 2000+n%7*1000)
}

// churnIsWhole checks every finished file, and returns how many there are.
func (u *use) churnIsWhole() (files int) {
	u.t.Helper()
	paths, err := filepath.Glob(filepath.Join(u.target, "churn*"))
	u.ok(err)
	for _, path := range paths {
		if strings.HasSuffix(path, ".tmp") {
			continue
		}
		files++
		got, err := os.ReadFile(path)
		u.ok(err)
		var n int
		if _, err := fmt.Sscanf(string(got), "%d", &n); err != nil || !bytes.Equal(got, churnContent(n)) {
			u.t.Errorf("%s: %s is torn: %d bytes, %.20q, %v", u.name, filepath.Base(path), len(got), got, err)
		}
	}
	return files
}

// Snapshots and clones of a volume that is being written to: their file systems are clean, and what was
// finished before the cut is in them, whole.
func TestSnapshotUnderAWriter(t *testing.T) {
	c := newCO(t)
	for _, k := range kinds {
		if k.block {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			c := c.in(t)
			t.Cleanup(c.deleteAll)
			v := c.volume("v", k)
			u := c.use(v, k)
			u.write("before")
			stop := churn(u)
			time.Sleep(2 * time.Second)
			s := c.snapshot("s", v)
			time.Sleep(500 * time.Millisecond)
			clone := c.volume("clone", k, fromVolume(v))
			finished := stop()
			if finished < churnFiles {
				t.Logf("the writer has finished only %d files", finished)
			}
			restored := c.volume("restored", k, fromSnapshot(s))
			if k == ext4 {
				c.isClean(restored.GetVolumeId(), k) // LVM froze it: there is not even a log to replay
				c.isClean(clone.GetVolumeId(), k)
			}
			one, two := c.use(restored, k), c.use(clone, k)
			for _, copied := range []*use{one, two} {
				copied.holds("before")
				if n := copied.churnIsWhole(); n == 0 {
					t.Errorf("nothing of the writer's is in the copy")
				}
			}
			for _, x := range []*use{u, one, two} {
				x.release()
				c.isClean(x.id, k)
			}
		})
	}
}
