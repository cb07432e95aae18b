package ctl_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// The bar, the share, the rate and the time left.
func TestTrackLine(t *testing.T) {
	for want, got := range map[string]string{
		"shop/orders  copy [....................] 0.0% of 10 GiB":                       ctl.TrackLine(0, 0, 10*gib, time.Minute),
		"shop/orders  copy [##########..........] 50.0% of 10 GiB":                      ctl.TrackLine(5*gib, 5*gib, 10*gib, time.Minute),
		"shop/orders  copy [####................] 20.0% of 10 GiB, 51 MiB/s, 2m left":   ctl.TrackLine(gib, 2*gib, 10*gib, 20*time.Second),
		"shop/orders  copy [####................] 20.0% of 10 GiB, 102 MiB/s, 80s left": ctl.TrackLine(gib, 2*gib, 10*gib, 10*time.Second),
		"shop/orders  copy [####################] 100.0% of 10 GiB, 1.0 GiB/s, 0s left": ctl.TrackLine(0, 10*gib, 10*gib, 10*time.Second),
		"shop/orders  copy [##########..........] 50.0% of 1.0 GiB":                     ctl.TrackLine(0, gib/2, gib, 0),
	} {
		if got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// The tag is renewed now and then, and between the kernel's count goes on from it; it never goes back, nor beyond the end.
func TestFollow(t *testing.T) {
	for name, tt := range map[string]struct{ looks, want [][2]int64 }{
		"by the kernel":            {[][2]int64{{10, 100}, {10, 130}, {10, 150}}, [][2]int64{{10}, {40}, {60}}},
		"the tag catches up":       {[][2]int64{{0, 0}, {0, 50}, {45, 55}, {45, 65}}, [][2]int64{{0}, {50}, {50}, {55}}},
		"no device":                {[][2]int64{{10, -1}, {20, -1}, {20, -1}}, [][2]int64{{10}, {20}, {20}}},
		"the device is made again": {[][2]int64{{10, 500}, {10, 520}, {10, 5}, {10, 45}}, [][2]int64{{10}, {30}, {30}, {50}}},
		"written twice":            {[][2]int64{{90, 0}, {90, 400}}, [][2]int64{{90}, {100}}},
	} {
		var want []int64
		for _, w := range tt.want {
			want = append(want, w[0])
		}
		if got := ctl.Follow(100, tt.looks); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// wiping makes a thick volume, shop/new, that is being wiped until goOn is closed; done has what became of it.
func (n *fakeNode) wiping() (goOn chan struct{}, done chan error) {
	begun, release := make(chan struct{}), make(chan struct{})
	n.OnFill(func(context.Context, string) error {
		close(begun)
		<-release
		return nil
	})
	ended := make(chan error, 1)
	go func() {
		_, err := n.engine.CreateVolume(context.Background(), storage.VolumeSpec{
			Name: "pvc-new", RequiredBytes: gib, Access: storage.AccessBlock, Claim: claim("new"), Class: storage.Class{Type: storage.TypeThick},
		})
		ended <- err
	}()
	<-begun
	return release, ended
}

// A group that cannot be looked at ends nothing: the copies in the others are followed, and its own are not taken for done.
func TestWatchGoesOn(t *testing.T) {
	n := newNode(t)
	n.AddGroup("broken", 10*gib)
	goOn, done := n.wiping()
	n.groups = []string{"broken", group}
	looks := 0
	n.hang = func(args []string) error {
		switch {
		case slices.Contains(args, "broken"):
			return errors.New("no such disk")
		case args[0] != "lvs":
			return nil
		}
		looks++
		switch looks {
		case 3:
			return errors.New("not at this moment")
		case 5:
			close(goOn)
			return <-done
		}
		return nil
	}
	code := n.ctl("watch", "--interval", "1ms", "--volume-group", "broken,data")
	out := n.out.String()
	for _, want := range []string{"shop/new  zero", ", as of the last look: volume group data cannot be looked at", "shop/new  zero: done, or given up"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if code != ctl.ExitFailed || strings.Count(out, "done, or given up") != 1 || !strings.Contains(n.err.String(), "no such disk") {
		t.Errorf("exit code %d: %s%s", code, out, n.err.String())
	}
}
