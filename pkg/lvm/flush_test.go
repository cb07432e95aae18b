package lvm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

// cache is a disk's, as a reader of the metadata that is behind it.
type cache struct {
	flushes int
	err     error
}

func (c *cache) Metadata(string) (lvm.Metadata, error)     { return lvm.Metadata{}, nil }
func (c *cache) Locate(context.Context, *lvm.Client) error { return nil }
func (c *cache) Flush(context.Context, *lvm.Client) error  { c.flushes++; return c.err }
func (c *cache) want(t *testing.T, what string, flushes int) {
	t.Helper()
	if c.flushes != flushes {
		t.Errorf("%s: %d flushes so far, want %d", what, c.flushes, flushes)
	}
}

// What a turn has changed is durable before anybody hears of it, and what a driver before may have changed, too.
func TestTurnsAreFlushed(t *testing.T) {
	fake := lvmtest.New()
	fake.AddGroup("vg0", 1<<30)
	disk := &cache{}
	g, err := lvm.NewGroup("vg0", lvm.GroupOptions{Executor: fake, Reader: disk})
	if err != nil {
		t.Fatal(err)
	}
	do := func(fn func(ctx context.Context, c *lvm.Client) error) error {
		return g.Do(t.Context(), "test", time.Minute, fn)
	}
	look := func(ctx context.Context, c *lvm.Client) error { _, err := c.LVs(ctx); return err }
	change := func(ctx context.Context, c *lvm.Client) error { return c.Remove(ctx, "csi-v-x") }
	failed := errors.New("failed")

	for range 2 {
		if err := do(look); err != nil {
			t.Error(err)
		}
		disk.want(t, "the first turn, and a look", 1)
	}
	_ = do(func(ctx context.Context, c *lvm.Client) error { _ = change(ctx, c); return nil })
	disk.want(t, "a change", 2)
	if err := do(func(ctx context.Context, c *lvm.Client) error { _ = change(ctx, c); return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	disk.want(t, "a change that failed", 2)
	disk.err = failed
	if err := do(look); !errors.Is(err, lvm.ErrOutcomeUnknown) || !errors.Is(err, failed) {
		t.Errorf("a disk that cannot be flushed: %v", err)
	}
	disk.err = nil
	if err := do(look); err != nil {
		t.Error(err)
	}
	disk.want(t, "what nobody had flushed", 4)
	if err := do(look); err != nil {
		t.Error(err)
	}
	disk.want(t, "a look", 4)
}
