package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

const mib = 1 << 20

// files are a source with data and a destination with garbage.
func files(t *testing.T, sourceBytes, destinationBytes int) (source, destination string) {
	t.Helper()
	dir := t.TempDir()
	source, destination = filepath.Join(dir, "source"), filepath.Join(dir, "destination")
	data := make([]byte, max(sourceBytes, destinationBytes))
	garbage(data)
	put(t, source, data[:sourceBytes])
	for i := range data {
		data[i] ^= 0xff
	}
	put(t, destination, data[:destinationBytes])
	return source, destination
}

func TestRefusals(t *testing.T) {
	source, destination := files(t, 2*mib, 2*mib)
	short, _ := files(t, mib, 0)
	link := destination + "-link"
	if err := os.Symlink(source, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		req  Request
		opts Options
		want string
	}{
		"short source":      {Request{Source: short, SizeBytes: 2 * mib}, Options{}, "the source has 1048576 bytes, fewer than the 2097152"},
		"short destination": {Request{Destination: short, SizeBytes: 2 * mib}, Options{}, "the destination has 1048576 bytes, fewer than the 2097152"},
		"no source":         {Request{Source: "/none", SizeBytes: mib}, Options{}, "open /none"},
		"no destination":    {Request{Destination: "/none", SizeBytes: mib}, Options{}, "open /none"},
		"onto itself":       {Request{Destination: link, SizeBytes: mib}, Options{}, "the same device"},
		"no size":           {Request{}, Options{}, "a size of 0 bytes"},
		"odd size":          {Request{SizeBytes: mib + 1}, Options{}, "a size of 1048577 bytes"},
		"offset beyond":     {Request{SizeBytes: mib}, Options{OffsetBytes: 3 * mib}, "offset 3145728"},
		"odd offset":        {Request{SizeBytes: mib}, Options{OffsetBytes: 1}, "offset 1 "},
		"odd block":         {Request{SizeBytes: mib}, Options{BlockBytes: 512}, "a block size of 512 bytes"},
		"no workers":        {Request{SizeBytes: mib}, Options{Parallelism: -1}, "a parallelism of -1"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.req.Source == "" {
				c.req.Source = source
			}
			if c.req.Destination == "" {
				c.req.Destination = destination
			}
			before := get(t, destination)
			p, err := Copy(t.Context(), c.req, c.opts)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.req.Destination) {
				t.Errorf("%q does not name the destination", err)
			}
			if p.DurableBytes != c.opts.OffsetBytes {
				t.Errorf("%d durable bytes, were %d", p.DurableBytes, c.opts.OffsetBytes)
			}
			if !bytes.Equal(get(t, destination), before) {
				t.Error("the destination has changed")
			}
		})
	}
}

func TestZero(t *testing.T) {
	_, device := files(t, 0, 5*mib)
	p, err := Zero(t.Context(), device, Options{OffsetBytes: mib})
	if err != nil {
		t.Fatal(err)
	}
	got := get(t, device)
	if len(got) != 5*mib || !isZero(got[mib:]) {
		t.Error("not all is zero")
	}
	if isZero(got[mib-pageBytes : mib]) {
		t.Error("what is before the offset was zeroed")
	}
	if p.DurableBytes != 5*mib || p.TotalBytes != 5*mib || p.ZeroBytes != 4*mib {
		t.Errorf("%+v", p)
	}
}

// TestSkipsZeroes: a sparse destination stays sparse.
func TestSkipsZeroes(t *testing.T) {
	source, destination := files(t, mib, 0)
	for _, f := range []string{source, destination} {
		if err := os.Truncate(f, 64*mib); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Copy(t.Context(), Request{Source: source, Destination: destination, SizeBytes: 64 * mib, DestinationZeroed: true}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if p.ZeroBytes != 63*mib {
		t.Errorf("%d bytes were taken for zeroes", p.ZeroBytes)
	}
	var stat unix.Stat_t
	if err := unix.Stat(destination, &stat); err != nil {
		t.Fatal(err)
	}
	if used := stat.Blocks * sectorBytes; used > 2*mib {
		t.Errorf("the copy takes %d bytes", used)
	}
	if !bytes.Equal(get(t, destination), get(t, source)) {
		t.Error("the copy differs")
	}
}

// TestRateLimit: copies that share a limiter share its rate, and a burst below the block size is no obstacle.
func TestRateLimit(t *testing.T) {
	for _, burst := range []int{mib / 16, mib} {
		t.Run(fmt.Sprint("burst=", burst), func(t *testing.T) {
			var requests [2]Request
			for i := range requests {
				source, destination := files(t, 4*mib, 4*mib)
				requests[i] = Request{Source: source, Destination: destination, SizeBytes: 4 * mib}
			}
			synctest.Test(t, func(t *testing.T) {
				limiter := rate.NewLimiter(mib, burst)
				start := time.Now()
				done := make(chan error)
				for _, req := range requests {
					go func() {
						_, err := Copy(t.Context(), req, Options{Limiter: limiter})
						done <- err
					}()
				}
				for range requests {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				want := time.Duration(8*mib-burst) * time.Second / mib
				if took := time.Since(start); took < want-time.Second/100 || took > want+time.Second/100 {
					t.Errorf("8 MiB at 1 MiB/s took %v, want %v", took, want)
				}
			})
		})
	}
}

// TestCancel: what waits for the rate limit does not wait for it when the context ends.
func TestCancel(t *testing.T) {
	source, destination := files(t, 4*mib, 4*mib)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		time.AfterFunc(90*time.Second, cancel)
		start := time.Now()
		p, err := Copy(ctx, Request{Source: source, Destination: destination, SizeBytes: 4 * mib}, Options{
			BlockBytes: mib, Limiter: rate.NewLimiter(mib/60, mib), CheckpointInterval: time.Second, Parallelism: 1,
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != 90*time.Second {
			t.Errorf("it ended after %v", took)
		}
		// The first MiB passed at once, before a checkpoint was due; the second after a minute.
		if p.DurableBytes != 2*mib || p.TotalBytes != 4*mib || p.Remaining.Round(time.Second) != time.Minute {
			t.Errorf("%+v", p)
		}
	})
}

// TestUnlimited: a limiter that has been set to no limit has no burst either.
func TestUnlimited(t *testing.T) {
	source, destination := files(t, mib, mib)
	if _, err := Copy(t.Context(), Request{Source: source, Destination: destination, SizeBytes: mib}, Options{Limiter: rate.NewLimiter(rate.Inf, 0)}); err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.ENOSPC: "extend the pool", unix.EIO: "kernel's log", unix.EBUSY: "unmount",
	} {
		err := explain(&os.PathError{Op: "write", Path: "/dev/vg/lv", Err: errno})
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/dev/vg/lv") {
			t.Errorf("%v", err)
		}
	}
	if err := explain(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestProgressString(t *testing.T) {
	p := Progress{DurableBytes: 3 << 30, TotalBytes: 10 << 30, ZeroBytes: mib, BytesPerSecond: 512 * mib, Remaining: 14*time.Second + 3}
	if got, want := p.String(), "3.0 GiB of 10 GiB, 1.0 MiB zeroes not written, 512 MiB/s, 14s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func BenchmarkIsZero(b *testing.B) {
	buf := make([]byte, DefaultBlockBytes)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if n, zero := nextRun(buf, skipBytes); !zero || n != len(buf) {
			b.Fatal(n, zero)
		}
	}
}
