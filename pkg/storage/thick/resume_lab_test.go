//go:build lab

package thick_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// watched is pkg/blockcopy, and where the last copy began.
type watched struct{ offset atomic.Int64 }

func (w *watched) Zero(ctx context.Context, device string, o blockcopy.Options) (blockcopy.Progress, error) {
	return blockcopy.Zero(ctx, device, o)
}

func (w *watched) Copy(ctx context.Context, r blockcopy.Request, o blockcopy.Options) (blockcopy.Progress, error) {
	w.offset.Store(o.OffsetBytes)
	return blockcopy.Copy(ctx, r, o)
}

// A copy that ends with its engine goes on with the next one where it was, and has all that it is to have.
func TestCopyGoesOn(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "512m"})
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kernel, filler := &dm.Control{}, &watched{}
	t.Cleanup(func() { _ = kernel.Close() })
	open := func(limiter *rate.Limiter) *storage.Engine {
		e, err := storage.New(t.Context(), storage.Options{
			Driver: backendtest.Driver, NodeID: backendtest.NodeID, Kernel: kernel, Groups: []*lvm.Group{backendtest.OpenGroup(t, vg.Name, env)},
			Fill:     storage.FillOptions{Filler: filler, Wait: time.Second, Limiter: limiter, Checkpoint: 100 * time.Millisecond},
			Backends: map[storage.Type]storage.Backend{storage.TypeThin: thin.New(thin.Options{Kernel: kernel}), storage.TypeThick: thick.New(kernel)},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		return e
	}
	m := &machine{open(nil), vg, kernel}
	for _, class := range []storage.Class{thickClass, thinClass} {
		v := m.activate(t, m.create(t, "source of "+string(class.Type), thickClass, nil))
		overwrite(t, v, "everything")
		sources := []*storage.Source{{Kind: storage.SourceVolume, ID: v.ID}}
		if class == thickClass {
			sources = []*storage.Source{{Kind: storage.SourceSnapshot, ID: m.cut(t, "s of "+v.Name, v, storage.COWSize{}).ID}}
		}
		for _, source := range sources {
			m.Close()
			m.Engine = open(rate.NewLimiter(16<<20, 4<<20)) // 2 s for the copy
			name := string(source.Kind) + " into " + string(class.Type)
			spec := storage.VolumeSpec{Name: name, Access: storage.AccessBlock, Class: class, Source: source}
			if _, err := m.CreateVolume(t.Context(), spec); err == nil {
				t.Fatalf("%s: it was too fast", name)
			}
			for deadline := time.Now().Add(10 * time.Second); !strings.Contains(
				labtest.Run(t, "lvs", "--noheadings", "-o", "lv_tags", vg.Name), "lvmsnap.fill=copy:"); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: nobody writes down how far it is", name)
				}
			}
			m.Close()
			m.Engine = open(nil) // which goes on unasked
			var r storage.Volume
			for deadline := time.Now().Add(10 * time.Second); r.ID == ""; time.Sleep(20 * time.Millisecond) {
				if r, err = m.CreateVolume(t.Context(), spec); err != nil && time.Now().After(deadline) {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if filler.offset.Load() == 0 {
				t.Errorf("%s: it began again", name)
			}
			want, err := os.ReadFile(v.DevicePath)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(m.activate(t, r).DevicePath)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: other data: %d bytes of %d, %v", name, len(got), len(want), err)
			}
			if err := m.Deactivate(t.Context(), r.ID); err != nil {
				t.Error(err)
			}
		}
	}
	if left := labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", vg.Name); strings.Contains(left, "csi-c-") {
		t.Errorf("left behind:\n%s", left)
	}
}
