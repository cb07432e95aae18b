//go:build lab

package thick_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// The disk of one of two groups is gone when the driver starts. The other group is served, and this one, too, when the disk is back.
func TestStartWithoutADisk(t *testing.T) {
	disks := labtest.FragileDisks(t, 2)
	groups := []string{labtest.FragileGroup(t, "gone", disks[0]).Name, labtest.FragileGroup(t, "well", disks[1]).Name}
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kernel := &dm.Control{}
	t.Cleanup(func() { _ = kernel.Close() })
	open := func() *machine {
		o := storage.Options{
			Driver: backendtest.Driver, NodeID: backendtest.NodeID, Kernel: kernel, Fill: storage.FillOptions{Wait: time.Minute},
			Backends: map[storage.Type]storage.Backend{storage.TypeThin: thin.New(thin.Options{Kernel: kernel}), storage.TypeThick: thick.New(kernel)},
		}
		for _, name := range groups {
			o.Groups = append(o.Groups, backendtest.OpenGroup(t, name, env))
		}
		e, err := storage.New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		return &machine{Engine: e, kernel: kernel}
	}

	m := open()
	var volumes []storage.Volume
	for _, name := range groups {
		v := m.create(t, name, storage.Class{Type: storage.TypeThick, VolumeGroup: name}, nil)
		backendtest.WriteDevice(t, m.activate(t, v), name)
		m.expect(t, v, name)
		volumes = append(volumes, v)
	}
	gone, well := volumes[0], volumes[1]
	m.Close()
	disks[0].Fail()

	m = open()
	m.expect(t, well, groups[1])
	if _, err := m.Activate(t.Context(), gone.ID); err == nil || errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the volume on the disk that is gone: %v", err)
	}
	if err := m.DeleteVolume(t.Context(), gone.ID); err == nil {
		t.Error("what is on the disk that is gone counts as deleted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	disks[0].Heal()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := m.Activate(t.Context(), gone.ID); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	m.expect(t, gone, groups[0])
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
